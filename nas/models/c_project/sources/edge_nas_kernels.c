/* Convolutions. */
#include "edge_nas_kernels.h"

#include <string.h>

#include "edge_nas_arithmetic.h"

#if defined(__ARM_FEATURE_DSP) && defined(__ARM_FEATURE_UNALIGNED)
#include <arm_acle.h>
#define EN_DSP 1
#else
#define EN_DSP 0
#endif

#if EN_DSP
static inline uint32_t rotated(uint32_t a, int bits) { return (a >> bits) | (a << (32 - bits)); }
#endif

#define BLOCK 4   /* pixels that share a weight in registers */
#define PIXELS 16 /* pixels that share an unpacked weight */

/* Unpacks `count` weights from number `first` on; returns where they are. */
static const int8_t *unpack(const en_conv *conv, uint32_t first, int count, int8_t *to) {
  const int bits = conv->bits;
  const int low = conv->low, step = conv->step;
  const uint32_t mask = (1u << bits) - 1u;
  const uint32_t at = first * (uint32_t)bits;
  const uint8_t *from = conv->weights + (at >> 3);
  uint32_t window;
  int have, i = 0;
  if (bits == 8) return (const int8_t *)conv->weights + first;
  have = 8 - (int)(at & 7u);
  window = (uint32_t)*from++ >> (at & 7u);
  if (bits == 4 && have == 8) {
    for (; i + 2 <= count; i += 2) {
      to[i] = (int8_t)(low + step * (int)(window & 15u));
      to[i + 1] = (int8_t)(low + step * (int)(window >> 4));
      /* The last byte read may lie behind the weights of this row, but not of the array. */
      if (i + 2 < count) window = *from++;
    }
    if (i < count) to[i] = (int8_t)(low + step * (int)(window & 15u));
    return to;
  }
  for (; i < count; ++i) {
    if (have < bits) {
      window |= (uint32_t)*from++ << have;
      have += 8;
    }
    to[i] = (int8_t)(low + step * (int)(window & mask));
    window >>= bits;
    have -= bits;
  }
  return to;
}

/* sums[p] += x[p] . w for BLOCK pixels. */
static void dot_block(const uint8_t *const *x, int from, const int8_t *w, int count,
                      int32_t *sums) {
  const uint8_t *x0 = x[0] + from, *x1 = x[1] + from, *x2 = x[2] + from, *x3 = x[3] + from;
  int32_t s0 = sums[0], s1 = sums[1], s2 = sums[2], s3 = sums[3];
  int i = 0;
#if EN_DSP
  for (; i + 4 <= count; i += 4) {
    uint32_t q, a;
    int16x2_t even, odd;
    memcpy(&q, w + i, 4);
    even = __sxtb16(q);
    odd = __sxtb16(rotated(q, 8));
#define EN_FOUR(x_, s_)                                      \
  memcpy(&a, x_ + i, 4);                                     \
  s_ = __smlad((int16x2_t)__uxtb16(a), even, s_);            \
  s_ = __smlad((int16x2_t)__uxtb16(rotated(a, 8)), odd, s_);
    EN_FOUR(x0, s0)
    EN_FOUR(x1, s1)
    EN_FOUR(x2, s2)
    EN_FOUR(x3, s3)
#undef EN_FOUR
  }
#endif
  for (; i < count; ++i) {
    const int32_t weight = w[i];
    s0 += x0[i] * weight;
    s1 += x1[i] * weight;
    s2 += x2[i] * weight;
    s3 += x3[i] * weight;
  }
  sums[0] = s0;
  sums[1] = s1;
  sums[2] = s2;
  sums[3] = s3;
}

static int32_t dot(const uint8_t *x, const int8_t *w, int count) {
  int32_t sum = 0;
  int i = 0;
#if EN_DSP
  for (; i + 4 <= count; i += 4) {
    uint32_t q, a;
    memcpy(&q, w + i, 4);
    memcpy(&a, x + i, 4);
    sum = __smlad((int16x2_t)__uxtb16(a), __sxtb16(q), sum);
    sum = __smlad((int16x2_t)__uxtb16(rotated(a, 8)), __sxtb16(rotated(q, 8)), sum);
  }
#endif
  for (; i < count; ++i) sum += x[i] * w[i];
  return sum;
}

static int32_t with_function(const en_conv *conv, uint32_t v, int32_t low, int32_t high) {
  const uint32_t sixth = 0x3e2aaaabu, half = 0x3f000000u, one = 0x3f800000u;
  uint32_t gate = en_float_plus(en_float_times(v, sixth), half);
  if (en_float_order(gate) < 0) gate = 0;
  if (en_float_order(gate) > (int32_t)one) gate = one;
  if (conv->function == EN_HARD_SWISH) gate = en_float_times(v, gate);
  return en_float_round(en_float_over(gate, conv->out_scale), low, high);
}

/* Writes what the sums of output channel n give at `count` pixels. */
static void finish(const en_conv *conv, const int32_t *sums, int count, uint32_t n,
                   uint32_t pixel, uint8_t *restrict out) {
  const en_channel c = conv->channels[n];
  const uint32_t stride = conv->outputs;
  const int32_t zero = conv->out_zero_point;
  const int32_t low = -zero, high = conv->out_high - zero;
  int p;
  if (conv->kind == EN_FLOATS) {
    out += 4 * (pixel * stride + n);
    for (p = 0; p < count; ++p, out += 4 * stride) {
      const uint32_t bits = en_float(sums[p] * c.factor + c.bias, c.mantissa, c.shift);
      memcpy(out, &bits, 4);
    }
    return;
  }
  out += pixel * stride + n;
  for (p = 0; p < count; ++p, out += stride) {
    const int32_t acc = sums[p] * c.factor + c.bias;
    if (conv->function == EN_IDENTITY)
      *out = (uint8_t)(en_round(acc, c.mantissa, c.shift, low, high) + zero);
    else if (conv->function == EN_FUNCTION)
      *out = en_code(conv->numbers, en_float(acc, c.mantissa, c.shift), n);
    else
      *out = (uint8_t)(with_function(conv, en_float(acc, c.mantissa, c.shift), low, high) + zero);
  }
}

/* Copies what a filter sees at one output pixel; returns `to`. */
static const uint8_t *gathered(const en_conv *conv, const uint8_t *in, uint32_t pixel,
                               uint32_t offset, int channels, uint8_t *restrict to) {
  const int y0 = (int)(pixel / conv->out_width) * conv->stride_h - conv->pad_top;
  const int x0 = (int)(pixel % conv->out_width) * conv->stride_w - conv->pad_left;
  const uint8_t *const start = to;
  const uint8_t *const table = conv->table;
  int i, j, k;
  for (i = 0; i < conv->kernel_h; ++i)
    for (j = 0; j < conv->kernel_w; ++j) {
      const int y = y0 + i * conv->dilation_h, x = x0 + j * conv->dilation_w;
      if (y < 0 || y >= conv->height || x < 0 || x >= conv->width) {
        memset(to, conv->zero_point, (size_t)channels);
      } else {
        const uint8_t *from =
            in + ((uint32_t)y * conv->width + (uint32_t)x) * conv->inputs + offset;
        if (table)
          for (k = 0; k < channels; ++k) to[k] = table[from[k]];
        else
          for (k = 0; k < channels; ++k) to[k] = from[k];
      }
      to += channels;
    }
  return start;
}

/* A patch of BLOCK pixels is gathered once for all outputs; a filter of one pixel is read where
 * it lies. */
static void run_patches(const en_conv *conv, const uint8_t *in, uint8_t *restrict out, int depth,
                        int direct) {
  uint8_t patch[BLOCK][EN_PATCH];
  int8_t unpacked[EN_CHUNK];
  const int channels = conv->inputs / conv->groups;
  const uint32_t per_group = (uint32_t)(conv->outputs / conv->groups);
  const uint32_t pixels = (uint32_t)conv->out_height * conv->out_width;
  const int piece = conv->bits == 8 ? depth : EN_CHUNK;
  uint32_t pixel, group, n;
  int p;
  for (pixel = 0; pixel < pixels; pixel += BLOCK) {
    const int count = pixels - pixel < BLOCK ? (int)(pixels - pixel) : BLOCK;
    for (group = 0; group < conv->groups; ++group) {
      const uint8_t *rows[BLOCK];
      for (p = 0; p < BLOCK; ++p)
        if (direct)
          rows[p] = in + (pixel + (uint32_t)(p < count ? p : 0)) * conv->inputs;
        else if (p < count)
          rows[p] = gathered(conv, in, pixel + (uint32_t)p, group * (uint32_t)channels, channels,
                             patch[p]);
        else
          rows[p] = patch[0];
      for (n = group * per_group; n < (group + 1) * per_group; ++n) {
        int32_t sums[BLOCK] = {0, 0, 0, 0};
        uint32_t first = n * (uint32_t)depth;
        int from;
        for (from = 0; from < depth; from += piece) {
          const int length = depth - from < piece ? depth - from : piece;
          const int8_t *w = unpack(conv, first, length, unpacked);
          first += (uint32_t)length;
          if (count == 1)
            sums[0] += dot(rows[0] + from, w, length);
          else
            dot_block(rows, from, w, length, sums);
        }
        finish(conv, sums, count, n, pixel, out);
      }
    }
  }
}

/* Long filters: weights are unpacked in chunks, each for PIXELS pixels. */
static void run_long(const en_conv *conv, const uint8_t *in, uint8_t *restrict out, int depth) {
  uint8_t zeros[EN_CHUNK], read[BLOCK][EN_CHUNK];
  int8_t unpacked[EN_CHUNK];
  int16_t ys[PIXELS], xs[PIXELS];
  int32_t sums[PIXELS];
  const int channels = conv->inputs / conv->groups;
  const uint32_t per_group = (uint32_t)(conv->outputs / conv->groups);
  const uint32_t pixels = (uint32_t)conv->out_height * conv->out_width;
  uint32_t pixel, n;
  memset(zeros, conv->zero_point, sizeof zeros);
  for (n = 0; n < conv->outputs; ++n) {
    const uint32_t offset = n / per_group * (uint32_t)channels;
    for (pixel = 0; pixel < pixels; pixel += PIXELS) {
      const int count = pixels - pixel < PIXELS ? (int)(pixels - pixel) : PIXELS;
      uint32_t first = n * (uint32_t)depth;
      int p, tap, from;
      for (p = 0; p < count; ++p) {
        sums[p] = 0;
        ys[p] = (int16_t)((int)((pixel + p) / conv->out_width) * conv->stride_h - conv->pad_top);
        xs[p] = (int16_t)((int)((pixel + p) % conv->out_width) * conv->stride_w - conv->pad_left);
      }
      for (; p < PIXELS; ++p) { /* outside the image: never read */
        sums[p] = 0;
        ys[p] = xs[p] = -32768;
      }
      for (tap = 0; tap < conv->kernel_h * conv->kernel_w; ++tap) {
        const int dy = tap / conv->kernel_w * conv->dilation_h;
        const int dx = tap % conv->kernel_w * conv->dilation_w;
        for (from = 0; from < channels; from += EN_CHUNK) {
          const int length = channels - from < EN_CHUNK ? channels - from : EN_CHUNK;
          const int8_t *w = unpack(conv, first, length, unpacked);
          first += (uint32_t)length;
          for (p = 0; p < count; p += BLOCK) {
            const uint8_t *rows[BLOCK];
            int b, k;
            for (b = 0; b < BLOCK; ++b) {
              const int y = ys[p + b] + dy, x = xs[p + b] + dx;
              if (y < 0 || y >= conv->height || x < 0 || x >= conv->width) {
                rows[b] = zeros;
                continue;
              }
              rows[b] = in + ((uint32_t)y * conv->width + (uint32_t)x) * conv->inputs + offset +
                        (uint32_t)from;
              if (conv->table) {
                for (k = 0; k < length; ++k) read[b][k] = conv->table[rows[b][k]];
                rows[b] = read[b];
              }
            }
            if (count == 1)
              sums[0] += dot(rows[0], w, length);
            else
              dot_block(rows, 0, w, length, sums + p);
          }
        }
      }
      finish(conv, sums, count, n, pixel, out);
    }
  }
}

void en_run_conv(const en_conv *conv, const uint8_t *in, uint8_t *out) {
  const int taps = conv->kernel_h * conv->kernel_w;
  const int depth = taps * (conv->inputs / conv->groups);
  const int direct = taps == 1 && conv->groups == 1 && !conv->table && conv->stride_h == 1 &&
                     conv->stride_w == 1 && conv->pad_top == 0 && conv->pad_left == 0 &&
                     conv->out_height == conv->height && conv->out_width == conv->width;
  /* Weights of odd widths take long to unpack: then for more than BLOCK pixels at once. */
  const int quick = conv->bits == 8 || conv->bits == 4;
  if (direct ? quick : depth <= (quick ? EN_PATCH : EN_CHUNK))
    run_patches(conv, in, out, depth, direct);
  else
    run_long(conv, in, out, depth);
}

/* A filter for each channel; its constants have no zero point folded in. */
void en_run_depthwise(const en_conv *conv, const uint8_t *in, uint8_t *restrict out) {
  int8_t unpacked[EN_CHUNK];
  const int kernel_h = conv->kernel_h, kernel_w = conv->kernel_w;
  const int step_h = conv->dilation_h, step_w = conv->dilation_w;
  const int height = conv->height, width = conv->width, zero = conv->zero_point;
  const uint8_t *const table = conv->table;
  const uint32_t channels = conv->inputs, column = (uint32_t)step_w * channels;
  uint32_t n;
  for (n = 0; n < channels; ++n) {
    const int taps = kernel_h * kernel_w;
    const int8_t *const weights = unpack(conv, n * (uint32_t)taps, taps, unpacked);
    uint32_t pixel = 0;
    int oy, ox, i, j;
    for (oy = 0; oy < conv->out_height; ++oy) {
      const int y0 = oy * conv->stride_h - conv->pad_top;
      int top = 0, bottom = kernel_h;
      while (top < bottom && y0 + top * step_h < 0) ++top;
      while (top < bottom && y0 + (bottom - 1) * step_h >= height) --bottom;
      for (ox = 0; ox < conv->out_width; ++ox, ++pixel) {
        const int x0 = ox * conv->stride_w - conv->pad_left;
        int left = 0, right = kernel_w;
        int32_t sum = 0;
        while (left < right && x0 + left * step_w < 0) ++left;
        while (left < right && x0 + (right - 1) * step_w >= width) --right;
        if (left < right) {
          const int aside = kernel_w - (right - left);
          const uint32_t line = (uint32_t)(step_h * width) * channels -
                                (uint32_t)(right - left) * column;
          const uint8_t *x = in + n;
          const int8_t *w = weights + top * kernel_w + left;
          x += (uint32_t)((y0 + top * step_h) * width + x0 + left * step_w) * channels;
          for (i = bottom - top; i > 0; --i, x += line, w += aside)
            if (table)
              for (j = right - left; j > 0; --j, x += column) sum += (table[*x] - zero) * *w++;
            else
              for (j = right - left; j > 0; --j, x += column) sum += (*x - zero) * *w++;
        }
        finish(conv, &sum, 1, n, pixel, out);
      }
    }
  }
}
