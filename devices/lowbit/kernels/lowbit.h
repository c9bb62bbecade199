// C interface of the low-bit runtime: a network of integer layers over numbered buffers.
//
// Activations are unsigned 8-bit codes, channels last: (batch, height, width, channels).
// Functions that return int give a number >= 0 (an id, or 0 for success) or -1; the reason is
// then in lowbit_error(). A network is used by one thread at a time.
#pragma once
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LOWBIT_ABI 4

typedef struct lowbit_network lowbit_network;

// What a convolution writes.
enum { LOWBIT_CODES = 0, LOWBIT_FLOAT = 1, LOWBIT_SUMS = 2 };
// Functions between the sum and the rounding.
enum {
  LOWBIT_IDENTITY = 0,
  LOWBIT_HARD_SWISH = 1,
  LOWBIT_HARD_SIGMOID = 2,
  LOWBIT_SIGMOID = 3,
  LOWBIT_SILU = 4
};

// What one side of a product is: codes less their zero point, numbers in a table of codes, floats as
// whole numbers of 2^-point, a curve over these.
enum { LOWBIT_OF_CODES = 0, LOWBIT_TABLE = 1, LOWBIT_OF_FLOATS = 2, LOWBIT_CURVE = 3 };

// Functions of floats, of rows and of numbers.
enum { LOWBIT_LAYER_NORM = 0, LOWBIT_RMS_NORM = 1, LOWBIT_SOFTMAX = 2 };
enum { LOWBIT_GELU = 0, LOWBIT_GELU_TANH = 1, LOWBIT_SWISH = 2 };

typedef struct {
  int32_t input, output;  // buffers
  int32_t batch, height, width, channels;
  int32_t outputs, kernel_h, kernel_w, stride_h, stride_w;
  int32_t pad_top, pad_left, pad_bottom, pad_right, dilation_h, dilation_w, groups;
  int32_t largest;     // no input code exceeds it
  int32_t zero_point;  // input code of the value zero, also of the padding
  int32_t kind;        // LOWBIT_CODES, LOWBIT_FLOAT or LOWBIT_SUMS
  int32_t function;    // LOWBIT_IDENTITY, ...
  int32_t out_zero_point, out_low, out_high;  // of the output codes
  float scale;         // of the output codes: divides what `function` gives, if there is one
} lowbit_conv;

typedef struct {
  int32_t input, output;  // buffers: float (rows, channels) and (rows, outputs)
  int32_t rows, channels, outputs;
  int32_t bits, planes;  // planes: 1, or up to 4 of one bit, each with scales of its own
  int32_t group;         // channels of a scale: 32, 64 or 128; 0 for all
  float zero;            // the field that means 0
} lowbit_linear;

int lowbit_abi(void);
const char* lowbit_error(void);
// Bit set of what this processor has and this build can use, and its names.
const char* lowbit_features(void);
// Lower the features that are used from now on: "portable", "avx2", "avx512", "neon" (without its
// dot products), or "" for all.
int lowbit_restrict(const char* features);

// `count` rows of `width` floats each. Layer norm: (x - mean) / sqrt(variance + epsilon) * scale + bias;
// root mean square norm: the same without the mean; scale and bias (width,) may be null.
int lowbit_rows(int operation, const float* x, const float* scale, const float* bias, float* out,
                int64_t count, int64_t width, float epsilon);
int lowbit_pointwise(int operation, const float* x, float* out, int64_t count);

lowbit_network* lowbit_create(int threads);
void lowbit_destroy(lowbit_network*);
int lowbit_buffer(lowbit_network*, int64_t bytes);
void* lowbit_data(lowbit_network*, int buffer);

// weights: (outputs, channels / groups, kernel_h, kernel_w) codes; factor, bias, multiplier:
// (outputs,). With acc = sum * factor + bias in 32 bits, the output is acc itself, or the float
// f(acc * multiplier), or the code clamp(round_half_even(acc * multiplier) + out_zero_point), or
// with a function clamp(round_half_even(f(acc * multiplier) / scale) + out_zero_point).
int lowbit_add_conv(lowbit_network*, const lowbit_conv*, const int8_t* weights,
                    const int32_t* factor, const int32_t* bias, const float* multiplier);
// A linear layer of weights alone. Each row x of the input is quantised to 8 bits, a = round(x * factor
// / s) with s = max |x * factor| / 127, and output n is bias + s * sum over groups of
// (sum over planes of scale * sum of (field - zero) * a, plus min * sum of a). See grouped.h for the
// order of weights, (outputs / 16 up, groups, planes, ...); scales float16 (outputs / 16 up, groups,
// planes, 16); mins float16 (outputs / 16 up, groups, 16) or null; bias float (outputs,) or null;
// factor float (channels,) or null. Nothing is copied: all must live as long as the network.
int lowbit_add_linear(lowbit_network*, const lowbit_linear*, const uint8_t* weights,
                      const uint16_t* scales, const uint16_t* mins, const float* bias,
                      const float* factor);
// Float (batch, channels, pixels) -> codes (batch, pixels, channels).
int lowbit_add_quantise(lowbit_network*, int input, int output, int batch, int channels,
                        int pixels, float scale, int zero_point, int high);
// Codes (batch, pixels, channels) -> float (batch, channels, pixels).
int lowbit_add_dequantise(lowbit_network*, int input, int output, int batch, int channels,
                          int pixels, float scale, int zero_point);
// code = clamp(round(fma(a, ma, fma(b, mb, constant))))
int lowbit_add_sum(lowbit_network*, int a, int b, int output, int64_t count, float ma, float mb,
                   float constant, int low, int high);
// code = clamp(round((a - za) * (b - zb) * m) + zero_point); b is (batch, 1, channels) where
// `pixels` of a share it, else pixels is 1.
int lowbit_add_product(lowbit_network*, int a, int b, int output, int batch, int pixels,
                       int channels, int za, int zb, float m, int zero_point, int low, int high);
// Mean over the pixels: clamp(round((sum - pixels * za) * m) + zero_point).
int lowbit_add_mean(lowbit_network*, int input, int output, int batch, int pixels, int channels,
                    int za, float m, int zero_point, int low, int high);
int lowbit_add_map(lowbit_network*, int input, int output, int64_t count, const uint8_t* table);
// The same table where it is clamp(round((a - za) * scale / out_scale) + zero_point).
int lowbit_add_rescale(lowbit_network*, int input, int output, int64_t count, int za, float scale,
                       float out_scale, int zero_point, int low, int high);
int lowbit_add_max_pool(lowbit_network*, int input, int output, int batch, int height, int width,
                        int channels, int kernel_h, int kernel_w, int stride_h, int stride_w,
                        int pad_top, int pad_left, int pad_bottom, int pad_right);
// (batch, pixels, channels) -> (batch, channels, pixels): a flatten in the order of NCHW.
int lowbit_add_planar(lowbit_network*, int input, int output, int batch, int pixels, int channels);
// Copies `channels` of each pixel from offset `from` to offset `to`: concatenation and splitting.
int lowbit_add_copy(lowbit_network*, int input, int output, int64_t pixels, int channels,
                    int in_stride, int from, int out_stride, int to);

// Floats to codes: code = codes[number of places that x has reached], `places` ascending numbers and
// one code more.
int lowbit_add_steps(lowbit_network*, int input, int output, int64_t count, int places,
                     const float* place, const uint8_t* codes);
// Floats (rows, channels): clamp(round((x < 0 ? slope * x : x) / scale) + zero_point).
int lowbit_add_slopes(lowbit_network*, int input, int output, int64_t rows, int channels,
                      const float* slopes, float scale, int zero_point, int high);
// Sums in 32 bits (batch, pixels, channels): clamp(round(sum * multiplier of the pixel) + zero_point).
int lowbit_add_shares(lowbit_network*, int input, int output, int batch, int pixels, int channels,
                      const float* multiplier, int zero_point, int high);
// clamp(round((a * b shortened by `shift` bits, halves up) * multiplier) + zero_point). A form is kind,
// zero point, point, low, high, bits of a cell, whether each pixel and whether each channel has its own
// number, and how many numbers the table has: 256, or four a cell, c0 + rest * (c1 + rest * (c2 + rest *
// c3)), each product without the bits of a cell.
int lowbit_add_gate(lowbit_network*, int a, int b, int output, int batch, int pixels, int channels,
                    const int32_t* form_a, const int32_t* table_a, const int32_t* form_b,
                    const int32_t* table_b, int shift, float multiplier, int zero_point, int high);
// Floats (batch, pixels, channels), each of `groups` of channels by itself: with whole numbers x of
// 2^-point, within `low` and `limit`, and their mean m, (x - m) * (gain / root(sum of s^2 + epsilon)) + bias,
// where s is x - m without its last `shift` bits. Gains make up for these, and have the root of how many
// numbers a group has as a factor.
int lowbit_add_norm(lowbit_network*, int input, int output, int batch, int pixels, int channels,
                    int groups, int point, int low, int limit, int shift, int64_t epsilon,
                    const float* gain, const float* bias);
// Images by weighted neighbours: of an output row, `row_taps` rows from `first_row` on, weights (out
// height, row taps) in units of 2^-LOWBIT_TAP_BITS, and columns likewise. Numbers of the form are
// lengthened by `lift` bits; sums along columns are rounded, then those along rows.
#define LOWBIT_TAP_BITS 20
int lowbit_add_resample(lowbit_network*, int input, int output, int batch, int height, int width,
                        int channels, int out_height, int out_width, const int32_t* form,
                        const int32_t* table, int lift, int row_taps, const int32_t* first_row,
                        const int32_t* row_weights, int column_taps, const int32_t* first_column,
                        const int32_t* column_weights, float multiplier, int zero_point, int low,
                        int high);

// Layers of floats: lowbit_rows and lowbit_pointwise of buffers, and a + b. Scale and bias are copied.
int lowbit_add_rows(lowbit_network*, int operation, int input, int output, int64_t count,
                    int64_t width, float epsilon, const float* scale, const float* bias);
int lowbit_add_pointwise(lowbit_network*, int operation, int input, int output, int64_t count);
int lowbit_add_plus(lowbit_network*, int a, int b, int output, int64_t count);
// Of a language model. `free` is a buffer with one float, the places of a window of `length` that are
// left after the last of `tokens`, or -1: then they end the window. Numbers are rounded and kept within
// what there is.
// Rows of `table` (entries, width) by the numbers in `input`, plus `positions` (length, width). Neither
// is copied: both must live as long as the network.
int lowbit_add_embed(lowbit_network*, int input, int free, int output, int64_t tokens, int64_t entries,
                     int64_t length, int64_t width, const float* table, const float* positions);
// Causal attention of (tokens, heads, query | key | value, width). The buffers `keys`, (heads, length / 8
// rounded up, width, 8), and `values`, (heads, length, width), hold those of the tokens before; the
// tokens' own are put there.
int lowbit_add_attend(lowbit_network*, int input, int free, int output, int keys, int values,
                      int64_t tokens, int64_t heads, int64_t length, int64_t width);

// Runs layers first..last - 1.
int lowbit_run(lowbit_network*, int first, int last);
// Runs `rounds` times and adds the time of each layer, in ns.
int lowbit_profile(lowbit_network*, int rounds, double* ns);
int lowbit_layers(lowbit_network*);
// Names of the kernels that can run a layer, separated by commas; the chosen one first.
const char* lowbit_kernels(lowbit_network*, int layer);
int lowbit_choose(lowbit_network*, int layer, const char* kernel);
// Times of one layer in ns by each of `count` kernels, names separated by commas, in turn within each
// of `rounds` rounds: ns[round * count + kernel]. The weights of all of them are held afterwards.
int lowbit_compare(lowbit_network*, int layer, const char* kernels, int rounds, double* ns);
// Forgets the weights as other kernels than the chosen one read them. Another choice makes them
// anew from what is kept.
int lowbit_settle(lowbit_network*, int layer);
// Gives back to the system what was freed: after the weights of a network are packed.
void lowbit_trim(void);
// Bytes that a layer's weights take, as they are kept for its kernel.
int64_t lowbit_packed_bytes(lowbit_network*, int layer);
// Median time in ns of one layer by its current kernel, over at least `rounds` runs.
double lowbit_time(lowbit_network*, int layer, int rounds);

#ifdef __cplusplus
}
#endif
