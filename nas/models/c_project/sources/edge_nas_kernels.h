/* Integer kernels of low-bit networks for microcontrollers: C99, no heap, no floating point.
 *
 * Activations are unsigned codes of at most 8 bits, channels last: (height, width, channels).
 * Every result has the bits that float32 arithmetic, rounded to nearest even, gives, or that
 * whole numbers give: the same as the packed model's reference runtime.
 */
#ifndef EDGE_NAS_KERNELS_H
#define EDGE_NAS_KERNELS_H

#include <stdint.h>

/* Weights that are unpacked at once, entries of a gathered patch, and entries of the rows that a
 * depthwise filter reads; below 1.5 KiB of them are on the stack. */
#define EN_CHUNK 64
#define EN_PATCH 256
#define EN_STRIP 256

/* Constants of an output channel. The multiplier is mantissa * 2^-shift. */
typedef struct {
  int32_t bias;     /* with the input's zero point folded in */
  int32_t mantissa; /* of the multiplier, below 2^31 */
  int16_t factor;   /* of the sum, 1 to 127 */
  int16_t shift;
} en_channel;

enum { EN_CODES = 0, EN_FLOATS = 1 };
enum { EN_IDENTITY = 0, EN_HARD_SWISH = 1, EN_HARD_SIGMOID = 2, EN_FUNCTION = 3 };

/* A function of float32 numbers, rounded to codes: a staircase, or slopes of negative numbers. */
typedef struct {
  const int32_t *places; /* where another code begins, ascending, as en_float_order gives them */
  const uint8_t *codes;  /* before the first place, and from each on; 0: slopes */
  const uint32_t *slopes; /* of each channel, float32 bits */
  uint32_t scale; /* of the codes, float32 bits */
  uint16_t count; /* of places */
  uint8_t zero_point, high;
} en_function;

typedef struct {
  const uint8_t *weights; /* (outputs, kernel_h, kernel_w, channels / groups), packed */
  const en_channel *channels;
  const uint8_t *table; /* of the input's codes, applied as they are read; or 0 */
  uint16_t height, width, inputs;
  uint16_t out_height, out_width, outputs;
  uint16_t groups;
  uint8_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, pad_top, pad_left;
  uint8_t bits; /* of a stored weight; 8: two's complement, else low + step * field */
  int8_t low, step;
  uint8_t zero_point; /* code of zero of the input, after the table */
  uint8_t kind, function;
  uint8_t out_zero_point, out_high;
  uint32_t out_scale; /* float32 bits; divides what `function` gives */
  const en_function *numbers; /* of EN_FUNCTION */
} en_conv;

/* code = clamp(round(fma(a, ratio_a, fma(b, ratio_b, constant)))), float32 */
typedef struct {
  uint32_t ratio_a, ratio_b, constant; /* float32 bits */
  int32_t fixed_a, fixed_b, fixed_constant; /* the same times 2^point */
  int32_t doubt; /* of a fixed-point sum, in units of 2^-point */
  uint8_t point, high;
} en_sum;

typedef struct {
  uint16_t height, width, channels, out_height, out_width;
  uint16_t kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left;
} en_pool;

/* mantissa * 2^-shift */
typedef struct {
  int32_t mantissa, shift;
} en_multiplier;

enum { EN_OF_CODES = 0, EN_TABLE = 1, EN_OF_FLOATS = 2, EN_CURVE = 3 };

/* One side of a product as whole numbers: codes less their zero point, numbers in a table of
 * codes, floats in units, or a curve over these: a cubic polynomial in each cell. */
typedef struct {
  const int32_t *table; /* (256) of codes, or (cells, 4) */
  uint32_t per_one; /* units of a float, a power of two as float32 bits */
  int32_t low, high; /* whole numbers of floats lie within these */
  uint8_t kind, zero_point;
  uint8_t cell_bits; /* of a curve's cell, whose first begins at low */
  uint8_t by_pixel, by_channel; /* whether each has its own number */
} en_operand;

/* What an axis becomes: `count` neighbours of each place from `first` on, weights in units of
 * 2^-20. */
typedef struct {
  const uint16_t *first;
  const int32_t *weights; /* (places, count) */
  int count;
} en_taps;

typedef struct {
  const en_operand *image;
  en_taps rows, columns;
  uint16_t width, channels, out_height, out_width;
  int lift; /* bits by which the image's numbers are lengthened */
  int32_t mantissa;
  int shift;
  int zero_point, low, high;
} en_resample;

/* Of float32 numbers in groups of channels, with whole numbers x in units and their mean m:
 * (x - m) * (gain / root(sum of s * s + epsilon)) + bias; s is x - m without its last `less` bits. */
typedef struct {
  const uint32_t *gain, *bias; /* (channels) float32 bits */
  int64_t epsilon;
  uint32_t per_one; /* units of a float, a power of two as float32 bits */
  int32_t low, limit; /* of the whole numbers */
  uint32_t pixels;
  uint16_t channels, groups;
  uint8_t less;
} en_norm;

void en_run_conv(const en_conv *conv, const uint8_t *in, uint8_t *out);
void en_run_depthwise(const en_conv *conv, const uint8_t *in, uint8_t *out);
void en_run_sum(const en_sum *sum, const uint8_t *a, const uint8_t *b, uint8_t *out,
                uint32_t count);
/* b has one pixel that all `pixels` of a share, or as many as a. */
void en_run_product(const uint8_t *a, const uint8_t *b, uint8_t *out, uint32_t pixels,
                    uint32_t channels, int shared, int zero_a, int zero_b, int32_t mantissa,
                    int shift, int zero_point, int high);
/* The product without its last `less` bits, halves up, times mantissa * 2^-shift. */
void en_run_gate(const en_operand *a, const en_operand *b, const uint8_t *in_a,
                 const uint8_t *in_b, uint8_t *out, uint32_t pixels, uint32_t channels, int less,
                 int32_t mantissa, int shift, int zero_point, int high);
void en_run_resample(const en_resample *resample, const uint8_t *in, uint8_t *out);
/* In place. */
void en_run_norm(const en_norm *norm, uint8_t *values);
void en_run_mean(const uint8_t *in, uint8_t *out, uint32_t pixels, uint32_t channels, int zero_in,
                 int32_t mantissa, int shift, int zero_point, int high);
/* To float32 bits. */
void en_run_mean_values(const uint8_t *in, uint8_t *out, uint32_t pixels, uint32_t channels,
                        int zero_in, int32_t mantissa, int shift);
/* Sums of windows times a factor of their kind: kinds of rows (out_height), of columns (out_width);
 * factors (kinds of rows, kinds of columns). */
void en_run_average_pool(const en_pool *pool, const uint8_t *in, uint8_t *out,
                         const en_multiplier *factors, const uint8_t *rows,
                         const uint8_t *columns, int column_kinds, int zero_in, int zero_point,
                         int high);
void en_run_max_pool(const en_pool *pool, const uint8_t *in, uint8_t *out);
void en_run_table(const uint8_t *table, const uint8_t *in, uint8_t *out, uint32_t count);
/* Float32 bits to codes. */
void en_run_function(const en_function *function, const uint8_t *in, uint8_t *out, uint32_t pixels,
                     uint32_t channels);
/* The code of one float32 number. */
uint8_t en_code(const en_function *function, uint32_t value, uint32_t channel);
/* (pixels, channels) -> (channels, pixels) */
void en_run_planar(const uint8_t *in, uint8_t *out, uint32_t pixels, uint32_t channels);
/* Write the channels, rows and columns that the lists name; 0xFFFF stands for zero. */
void en_run_pick(const uint8_t *in, uint8_t *out, const uint16_t *channels, const uint16_t *rows,
                 const uint16_t *columns, int in_channels, int in_width, int out_channels,
                 int out_height, int out_width, int zero);
/* Depth to space: `value` channels lie between values of a place, `place` between places. */
void en_run_spread(const uint8_t *in, uint8_t *out, int height, int width, int channels, int size,
                   int value, int place);
/* Copies `channels` of each pixel to offset `to` of an output pixel. */
void en_run_copy(const uint8_t *in, uint8_t *out, uint32_t pixels, uint32_t channels,
                 uint32_t out_stride, uint32_t to);
/* Codes to float32 bits. */
void en_run_values(const uint8_t *in, uint8_t *out, uint32_t count, int zero_point,
                   int32_t mantissa, int shift);

/* Index of the largest of `count` float32 numbers, compared as integers. */
int en_argmax(const uint8_t *values, int count);
/* Probabilities in units of 1 / 32768 of `count` float32 numbers; within 0.002 of a softmax. */
void en_softmax(const uint8_t *values, int count, uint16_t *probabilities);

#endif
