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
/* Bytes 1 and 3 as halves of a word; compilers take two instructions for it. */
static inline int16x2_t odd_bytes(uint32_t a) {
#ifdef __GNUC__
  int16x2_t halves;
  __asm__("uxtb16 %0, %1, ror #8" : "=r"(halves) : "r"(a));
  return halves;
#else
  return (int16x2_t)__uxtb16((a >> 8) | (a << 24));
#endif
}

static inline int16x2_t odd_signed_bytes(uint32_t a) {
#ifdef __GNUC__
  int16x2_t halves;
  __asm__("sxtb16 %0, %1, ror #8" : "=r"(halves) : "r"(a));
  return halves;
#else
  return __sxtb16((a >> 8) | (a << 24));
#endif
}
#endif

#define BLOCK 4   /* pixels of a depthwise filter that share a weight in registers */
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

/* sums[p] += x[p] . v and sums[PIXELS + p] += x[p] . w for an even number of pixels. */
static void dot_pairs(const uint8_t *const *rows, int from, int pixels, const int8_t *v,
                      const int8_t *w, int count, int32_t *sums) {
  const int whole = count & ~3;
  int p, i;
  for (p = 0; p < pixels; p += 2) {
    const uint8_t *x = rows[p] + from, *y = rows[p + 1] + from;
    const int8_t *a = v, *b = w, *const end = v + whole;
    int32_t xa = sums[p], ya = sums[p + 1], xb = sums[PIXELS + p], yb = sums[PIXELS + p + 1];
    for (; a < end; a += 4, b += 4, x += 4, y += 4) {
#if EN_DSP
      uint32_t bytes;
      int16x2_t x_even, x_odd, y_even, y_odd, even, odd;
      memcpy(&bytes, x, 4);
      x_even = (int16x2_t)__uxtb16(bytes);
      x_odd = odd_bytes(bytes);
      memcpy(&bytes, y, 4);
      y_even = (int16x2_t)__uxtb16(bytes);
      y_odd = odd_bytes(bytes);
      memcpy(&bytes, a, 4);
      even = __sxtb16(bytes);
      odd = odd_signed_bytes(bytes);
      xa = __smlad(x_odd, odd, __smlad(x_even, even, xa));
      ya = __smlad(y_odd, odd, __smlad(y_even, even, ya));
      memcpy(&bytes, b, 4);
      even = __sxtb16(bytes);
      odd = odd_signed_bytes(bytes);
      xb = __smlad(x_odd, odd, __smlad(x_even, even, xb));
      yb = __smlad(y_odd, odd, __smlad(y_even, even, yb));
#else
#define EN_FOUR(i_)                              \
  xa += x[i_] * a[i_];                           \
  ya += y[i_] * a[i_];                           \
  xb += x[i_] * b[i_];                           \
  yb += y[i_] * b[i_];
      EN_FOUR(0)
      EN_FOUR(1)
      EN_FOUR(2)
      EN_FOUR(3)
#undef EN_FOUR
#endif
    }
    for (i = 0; i < count - whole; ++i) {
      xa += x[i] * a[i];
      ya += y[i] * a[i];
      xb += x[i] * b[i];
      yb += y[i] * b[i];
    }
    sums[p] = xa;
    sums[p + 1] = ya;
    sums[PIXELS + p] = xb;
    sums[PIXELS + p + 1] = yb;
  }
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
    sum = __smlad(odd_bytes(a), odd_signed_bytes(q), sum);
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

/* Other outputs than plain codes. */
static void finish_otherwise(const en_conv *conv, const int32_t *sums, int count, uint32_t n,
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

/* Writes what the sums of output channel n give at `count` pixels. */
static void finish(const en_conv *conv, const int32_t *sums, int count, uint32_t n,
                   uint32_t pixel, uint8_t *restrict out) {
  const en_channel *const c = conv->channels + n;
  const int32_t bias = c->bias, mantissa = c->mantissa, factor = c->factor;
  const int32_t zero = conv->out_zero_point;
  const int32_t low = -zero, high = conv->out_high - zero;
  const uint32_t stride = conv->outputs;
  const int less = c->shift - 32;
  const int32_t *const last = sums + count;
  if (conv->kind != EN_CODES || conv->function != EN_IDENTITY || less < 1) {
    finish_otherwise(conv, sums, count, n, pixel, out);
    return;
  }
  out += pixel * stride + n;
  for (; sums < last; ++sums, out += stride)
    *out = (uint8_t)(en_round_short(*sums * factor + bias, mantissa, less, low, high) + zero);
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

/* Patches of up to PIXELS pixels are gathered once for all outputs, and share unpacked weights; a
 * filter of one pixel is read where it lies. */
static void run_patches(const en_conv *conv, const uint8_t *in, uint8_t *restrict out, int depth,
                        int direct) {
  uint8_t patch[BLOCK * EN_PATCH];
  int8_t unpacked[2][EN_CHUNK];
  const uint8_t *rows[PIXELS];
  int32_t sums[2 * PIXELS];
  const int channels = conv->inputs / conv->groups;
  const uint32_t per_group = (uint32_t)(conv->outputs / conv->groups);
  const uint32_t pixels = (uint32_t)conv->out_height * conv->out_width;
  const int piece = conv->bits == 8 ? depth : EN_CHUNK;
  const int fit = direct ? PIXELS : BLOCK * EN_PATCH / depth;
  const uint32_t at_once = fit < PIXELS ? (uint32_t)fit / BLOCK * BLOCK : PIXELS;
  uint32_t pixel, group, n;
  int p;
  for (pixel = 0; pixel < pixels; pixel += at_once) {
    const int count = (int)(pixels - pixel < at_once ? pixels - pixel : at_once);
    for (group = 0; group < conv->groups; ++group) {
      const uint32_t end = (group + 1) * per_group;
      for (p = 0; p < count; ++p)
        rows[p] = direct ? in + (pixel + (uint32_t)p) * conv->inputs
                         : gathered(conv, in, pixel + (uint32_t)p, group * (uint32_t)channels,
                                    channels, patch + p * depth);
      if (p & 1) rows[p] = rows[0];
      for (n = group * per_group; n < end; n += 2) {
        const int both = n + 1 < end;
        int from;
        memset(sums, 0, sizeof sums);
        for (from = 0; from < depth; from += piece) {
          const int length = depth - from < piece ? depth - from : piece;
          const uint32_t first = n * (uint32_t)depth + (uint32_t)from;
          const int8_t *v = unpack(conv, first, length, unpacked[0]), *w = v;
          if (both) w = unpack(conv, first + (uint32_t)depth, length, unpacked[1]);
          if (count > 1) {
            dot_pairs(rows, from, count, v, w, length, sums);
          } else {
            sums[0] += dot(rows[0] + from, v, length);
            sums[PIXELS] += dot(rows[0] + from, w, length);
          }
        }
        finish(conv, sums, count, n, pixel, out);
        if (both) finish(conv, sums + PIXELS, count, n + 1, pixel, out);
      }
    }
  }
}

/* Long filters: weights are unpacked in chunks, each for PIXELS pixels. */
static void run_long(const en_conv *conv, const uint8_t *in, uint8_t *restrict out, int depth) {
  uint8_t zeros[EN_CHUNK], read[BLOCK][EN_CHUNK];
  int8_t unpacked[2][EN_CHUNK];
  int16_t ys[PIXELS], xs[PIXELS];
  int32_t sums[2 * PIXELS];
  const int channels = conv->inputs / conv->groups;
  const uint32_t per_group = (uint32_t)(conv->outputs / conv->groups);
  const uint32_t pixels = (uint32_t)conv->out_height * conv->out_width;
  uint32_t pixel, n, next;
  memset(zeros, conv->zero_point, sizeof zeros);
  for (n = 0; n < conv->outputs; n = next) {
    const uint32_t group = n / per_group, offset = group * (uint32_t)channels;
    const int both = (n + 1) / per_group == group && n + 1 < conv->outputs;
    next = n + 1 + (uint32_t)both;
    for (pixel = 0; pixel < pixels; pixel += PIXELS) {
      const int count = pixels - pixel < PIXELS ? (int)(pixels - pixel) : PIXELS;
      uint32_t first = n * (uint32_t)depth;
      int p, tap, from;
      memset(sums, 0, sizeof sums);
      for (p = 0; p < count; ++p) {
        ys[p] = (int16_t)((int)((pixel + p) / conv->out_width) * conv->stride_h - conv->pad_top);
        xs[p] = (int16_t)((int)((pixel + p) % conv->out_width) * conv->stride_w - conv->pad_left);
      }
      for (; p < PIXELS; ++p) ys[p] = xs[p] = -32768; /* outside the image: never read */
      for (tap = 0; tap < conv->kernel_h * conv->kernel_w; ++tap) {
        const int dy = tap / conv->kernel_w * conv->dilation_h;
        const int dx = tap % conv->kernel_w * conv->dilation_w;
        for (from = 0; from < channels; from += EN_CHUNK) {
          const int length = channels - from < EN_CHUNK ? channels - from : EN_CHUNK;
          const int8_t *v = unpack(conv, first, length, unpacked[0]), *w = v;
          if (both) w = unpack(conv, first + (uint32_t)depth, length, unpacked[1]);
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
            dot_pairs(rows, 0, count == 1 ? 2 : BLOCK, v, w, length, sums + p);
          }
        }
      }
      finish(conv, sums, count, n, pixel, out);
      if (both) finish(conv, sums + PIXELS, count, n + 1, pixel, out);
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
  if (direct || depth <= (quick ? EN_PATCH : EN_PATCH / 2))
    run_patches(conv, in, out, depth, direct);
  else
    run_long(conv, in, out, depth);
}

/* What a row of one channel, less its zero point, holds from column x on, `every` columns apart;
 * zeros outside of the image. */
static void cut(const en_conv *conv, const uint8_t *row, int x, int every, int count,
                int16_t *restrict to) {
  const int width = conv->width, zero = conv->zero_point;
  const uint32_t step = conv->inputs * (uint32_t)every;
  const uint8_t *const table = conv->table;
  int16_t *const end = to + count;
  for (; x < 0 && to < end; x += every) *to++ = 0;
  if (x < width) {
    const int left = (width - x + every - 1) / every;
    int16_t *const inside = left < end - to ? to + left : end;
    row += (uint32_t)x * conv->inputs;
    if (table)
      for (; to < inside; row += step) *to++ = (int16_t)(table[*row] - zero);
    else
      for (; to < inside; row += step) *to++ = (int16_t)(*row - zero);
  }
  while (to < end) *to++ = 0;
}

/* Rows of the input as they were cut, and a filter. */
typedef struct {
  const int16_t *strip; /* (rows, length), the filter's first row at `top` */
  const int16_t *weights;
  int rows, length, top, taps;
  int stride, between; /* entries between pixels, and between taps */
} en_cut;

/* sums[p] = filter of BLOCK pixels from x on. */
static void filter_block(const en_cut *c, const int16_t *x, int32_t *sums) {
  const int16_t *w = c->weights;
  const int taps = c->taps, between = c->between, stride = c->stride;
  int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
  int row, slot = c->top;
  for (row = c->rows; row > 0; --row, w += taps) {
    const int16_t *x0 = x + slot * c->length;
    const int16_t *x1 = x0 + stride, *x2 = x1 + stride, *x3 = x2 + stride;
    int j = 0, at = 0;
#if EN_DSP
    if (between == 1)
      for (; j + 2 <= taps; j += 2) {
        int16x2_t q, a;
        memcpy(&q, w + j, 4);
        memcpy(&a, x0 + j, 4);
        s0 = __smlad(a, q, s0);
        memcpy(&a, x1 + j, 4);
        s1 = __smlad(a, q, s1);
        memcpy(&a, x2 + j, 4);
        s2 = __smlad(a, q, s2);
        memcpy(&a, x3 + j, 4);
        s3 = __smlad(a, q, s3);
      }
    at = j;
#endif
    for (; j < taps; ++j, at += between) {
      const int32_t weight = w[j];
      s0 += x0[at] * weight;
      s1 += x1[at] * weight;
      s2 += x2[at] * weight;
      s3 += x3[at] * weight;
    }
    if (++slot == c->rows) slot = 0;
  }
  sums[0] = s0;
  sums[1] = s1;
  sums[2] = s2;
  sums[3] = s3;
}

/* A filter for each channel; its constants have no zero point folded in. Rows are cut once for all
 * pixels of a tile, and once for all rows of outputs that see them. */
void en_run_depthwise(const en_conv *conv, const uint8_t *in, uint8_t *restrict out) {
  int16_t strip[EN_STRIP], weights[EN_CHUNK];
  int8_t unpacked[EN_CHUNK];
  int32_t sums[PIXELS];
  const int rows = conv->kernel_h, taps = conv->kernel_w, step_h = conv->dilation_h;
  const int stride_w = conv->stride_w, extent = (taps - 1) * conv->dilation_w + 1;
  const uint32_t line = (uint32_t)conv->width * conv->inputs;
  /* Pixels of a tile, whose rows must fit; far taps are cut one pixel at a time, side by side. */
  const int dense = rows * ((BLOCK - 1) * stride_w + extent) <= EN_STRIP;
  const int fit = dense ? ((EN_STRIP / rows - extent) / stride_w + 1) / BLOCK * BLOCK : 1;
  const int tile = fit < PIXELS ? fit : PIXELS;
  en_cut c;
  uint32_t n;
  c.strip = strip;
  c.weights = weights;
  c.rows = rows;
  c.taps = taps;
  c.length = dense ? (tile - 1) * stride_w + extent : taps;
  c.stride = dense ? stride_w : 0;
  c.between = dense ? conv->dilation_w : 1;
  for (n = 0; n < conv->inputs; ++n) {
    const int8_t *const w = unpack(conv, n * (uint32_t)(rows * taps), rows * taps, unpacked);
    int ox, oy, i, p;
    for (i = 0; i < rows * taps; ++i) weights[i] = w[i];
    for (ox = 0; ox < conv->out_width; ox += tile) {
      const int count = conv->out_width - ox < tile ? conv->out_width - ox : tile;
      const int x = ox * stride_w - conv->pad_left;
      int fresh = rows; /* rows to be cut */
      c.top = 0;
      for (oy = 0; oy < conv->out_height; ++oy) {
        const int y0 = oy * conv->stride_h - conv->pad_top;
        for (i = rows - fresh; i < rows; ++i) {
          const int y = y0 + i * step_h;
          int16_t *const to = strip + (c.top + i) % rows * c.length;
          if (y < 0 || y >= conv->height)
            memset(to, 0, sizeof *to * (size_t)c.length);
          else
            cut(conv, in + (uint32_t)y * line + n, x, dense ? 1 : conv->dilation_w, c.length, to);
        }
        for (p = 0; p < count; p += BLOCK) filter_block(&c, strip + p * stride_w, sums + p);
        finish(conv, sums, count, n, (uint32_t)(oy * conv->out_width + ox), out);
        /* The next row of outputs sees the last rows again. */
        fresh = step_h == 1 && conv->stride_h < rows ? conv->stride_h : rows;
        c.top = fresh < rows ? (c.top + fresh) % rows : 0;
      }
    }
  }
}
