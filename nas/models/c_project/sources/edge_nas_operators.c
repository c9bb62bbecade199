/* Sums, products, pools, tables, and what reads the output. */
#include <string.h>

#include "edge_nas_arithmetic.h"
#include "edge_nas_kernels.h"

static uint8_t sum_exactly(const en_sum *s, uint8_t a, uint8_t b) {
  const uint32_t inner = en_float_fma(b, s->ratio_b, s->constant);
  return (uint8_t)en_float_round(en_float_fma(a, s->ratio_a, inner), 0, s->high);
}

void en_run_sum(const en_sum *s, const uint8_t *a, const uint8_t *b, uint8_t *restrict out,
                uint32_t count) {
  const int32_t fixed_a = s->fixed_a, fixed_b = s->fixed_b;
  const int32_t constant = s->fixed_constant + (int32_t)(1u << (s->point - 1));
  const int point = s->point, high = s->high;
  const uint32_t mask = (1u << point) - 1u;
  const uint32_t doubt = (uint32_t)s->doubt;
  uint32_t i;
  for (i = 0; i < count; ++i) {
    const int32_t v = a[i] * fixed_a + b[i] * fixed_b + constant;
    const int32_t rounded = v >> point;
    if ((((uint32_t)v + doubt) & mask) < 2 * doubt)
      out[i] = sum_exactly(s, a[i], b[i]);
    else
      out[i] = (uint8_t)(rounded < 0 ? 0 : rounded > high ? high : rounded);
  }
}

void en_run_product(const uint8_t *a, const uint8_t *b, uint8_t *out, uint32_t pixels,
                    uint32_t channels, int shared, int zero_a, int zero_b, int32_t mantissa,
                    int shift, int zero_point, int high) {
  uint32_t p, c;
  for (p = 0; p < pixels; ++p) {
    for (c = 0; c < channels; ++c) {
      const int32_t product = (a[c] - zero_a) * (b[c] - zero_b);
      out[c] = (uint8_t)(en_round(product, mantissa, shift, -zero_point, high - zero_point) +
                         zero_point);
    }
    a += channels;
    out += channels;
    if (!shared) b += channels;
  }
}

static int64_t operand_value(const en_operand *o, const uint8_t *in, uint32_t pixel,
                             uint32_t channel, uint32_t channels) {
  const uint32_t place = (o->by_pixel ? pixel * (o->by_channel ? channels : 1) : 0) +
                         (o->by_channel ? channel : 0);
  const int32_t *row;
  uint32_t bits, at;
  int32_t whole;
  int64_t y, rest;
  int power;
  if (o->kind == EN_OF_CODES) return in[place] - (int32_t)o->zero_point;
  if (o->kind == EN_TABLE) return o->table[in[place]];
  memcpy(&bits, in + 4 * place, 4);
  whole = en_float_round(en_float_times(bits, o->per_one), o->low, o->high);
  if (o->kind == EN_OF_FLOATS) return whole;
  at = (uint32_t)whole - (uint32_t)o->low;
  rest = (int64_t)(at & ((1u << o->cell_bits) - 1u));
  row = o->table + 4 * (at >> o->cell_bits);
  y = row[3];
  for (power = 2; power >= 0; --power) y = row[power] + ((rest * y) >> o->cell_bits);
  return y;
}

void en_run_gate(const en_operand *a, const en_operand *b, const uint8_t *in_a,
                 const uint8_t *in_b, uint8_t *out, uint32_t pixels, uint32_t channels, int less,
                 int32_t mantissa, int shift, int zero_point, int high) {
  /* What all pixels share is computed once. */
  const int across = !a->by_pixel || !b->by_pixel;
  const uint32_t outer = across ? channels : pixels, inner = across ? pixels : channels;
  const int64_t half = less > 0 ? (int64_t)1 << (less - 1) : 0;
  uint32_t i, j;
  for (i = 0; i < outer; ++i) {
    int64_t x = 0, y = 0;
    for (j = 0; j < inner; ++j) {
      const uint32_t pixel = across ? j : i, channel = across ? i : j;
      int32_t product;
      if (j == 0 || (across ? a->by_pixel : a->by_channel))
        x = operand_value(a, in_a, pixel, channel, channels);
      if (j == 0 || (across ? b->by_pixel : b->by_channel))
        y = operand_value(b, in_b, pixel, channel, channels);
      product = (int32_t)((x * y + half) >> less);
      out[pixel * channels + channel] =
          (uint8_t)(en_round(product, mantissa, shift, -zero_point, high - zero_point) +
                    zero_point);
    }
  }
}

void en_run_resample(const en_resample *r, const uint8_t *in, uint8_t *out) {
  const int64_t half = (int64_t)1 << 19;
  const int32_t *above = r->rows.weights;
  uint32_t y, x, c;
  int i, j;
  for (y = 0; y < r->out_height; ++y, above += r->rows.count) {
    const int32_t *beside = r->columns.weights;
    for (x = 0; x < r->out_width; ++x, beside += r->columns.count)
      for (c = 0; c < r->channels; ++c) {
        int64_t total = 0;
        for (i = 0; i < r->rows.count; ++i) {
          const uint32_t at = ((uint32_t)r->rows.first[y] + (uint32_t)i) * r->width +
                              r->columns.first[x];
          int64_t sum = 0;
          for (j = 0; j < r->columns.count; ++j)
            sum += operand_value(r->image, in, at + (uint32_t)j, c, r->channels) *
                   ((int64_t)1 << r->lift) * beside[j];
          total += ((sum + half) >> 20) * above[i];
        }
        *out++ = (uint8_t)(en_round((int32_t)((total + half) >> 20), r->mantissa, r->shift,
                                    r->low - r->zero_point, r->high - r->zero_point) +
                           r->zero_point);
      }
  }
}

static int32_t whole_value(const en_norm *norm, const uint8_t *at) {
  uint32_t bits;
  memcpy(&bits, at, 4);
  return en_float_round(en_float_times(bits, norm->per_one), norm->low, norm->limit);
}

/* The root of a positive number: 31 bits of it, then as float32. */
static uint32_t root_of(uint64_t square) {
  uint64_t root = 0, bit;
  int shift = 0;
  while (!(square >> 62)) {
    square <<= 2;
    ++shift;
  }
  for (bit = (uint64_t)1 << 31; bit; bit >>= 1)
    if ((root | bit) * (root | bit) <= square) root |= bit;
  return en_float((int32_t)(root >> 1), 1, shift - 1);
}

void en_run_norm(const en_norm *norm, uint8_t *values) {
  const uint32_t each = norm->channels / norm->groups;
  const int64_t count = (int64_t)norm->pixels * each;
  const int64_t half = norm->less ? (int64_t)1 << (norm->less - 1) : 0;
  uint32_t first, c, p;
  for (first = 0; first < norm->channels; first += each) {
    int64_t sum = 0, mean;
    uint64_t squares = (uint64_t)norm->epsilon;
    uint32_t root;
    for (p = 0; p < norm->pixels; ++p)
      for (c = first; c < first + each; ++c)
        sum += whole_value(norm, values + 4 * (p * norm->channels + c));
    sum = 2 * sum + count; /* halves up */
    mean = sum / (2 * count) - (sum % (2 * count) < 0);
    for (p = 0; p < norm->pixels; ++p)
      for (c = first; c < first + each; ++c) {
        const int64_t apart = whole_value(norm, values + 4 * (p * norm->channels + c)) - mean;
        const int64_t size = (apart + half) >> norm->less;
        squares += (uint64_t)(size * size);
      }
    root = root_of(squares);
    for (c = first; c < first + each; ++c) {
      const uint32_t factor = en_float_over(norm->gain[c], root);
      for (p = 0; p < norm->pixels; ++p) {
        uint8_t *at = values + 4 * (p * norm->channels + c);
        const int32_t apart = (int32_t)(whole_value(norm, at) - mean);
        const uint32_t bits =
            en_float_plus(en_float_times(en_float(apart, 1, 0), factor), norm->bias[c]);
        memcpy(at, &bits, 4);
      }
    }
  }
}

void en_run_mean(const uint8_t *in, uint8_t *out, uint32_t pixels, uint32_t channels, int zero_in,
                 int32_t mantissa, int shift, int zero_point, int high) {
  uint32_t p, c;
  for (c = 0; c < channels; ++c) {
    int32_t sum = -(int32_t)pixels * zero_in;
    const uint8_t *from = in + c;
    for (p = 0; p < pixels; ++p, from += channels) sum += *from;
    out[c] = (uint8_t)(en_round(sum, mantissa, shift, -zero_point, high - zero_point) +
                       zero_point);
  }
}

void en_run_mean_values(const uint8_t *in, uint8_t *out, uint32_t pixels, uint32_t channels,
                        int zero_in, int32_t mantissa, int shift) {
  uint32_t p, c;
  for (c = 0; c < channels; ++c) {
    int32_t sum = -(int32_t)pixels * zero_in;
    const uint8_t *from = in + c;
    uint32_t bits;
    for (p = 0; p < pixels; ++p, from += channels) sum += *from;
    bits = en_float(sum, mantissa, shift);
    memcpy(out + 4 * c, &bits, 4);
  }
}

void en_run_average_pool(const en_pool *pool, const uint8_t *in, uint8_t *out,
                         const en_multiplier *factors, const uint8_t *rows,
                         const uint8_t *columns, int column_kinds, int zero_in, int zero_point,
                         int high) {
  int oy, ox, i, j, c;
  for (oy = 0; oy < pool->out_height; ++oy)
    for (ox = 0; ox < pool->out_width; ++ox) {
      const en_multiplier *factor = factors + rows[oy] * column_kinds + columns[ox];
      const int y0 = oy * pool->stride_h - pool->pad_top, x0 = ox * pool->stride_w - pool->pad_left;
      const int top = y0 < 0 ? 0 : y0, left = x0 < 0 ? 0 : x0;
      const int bottom = y0 + pool->kernel_h < pool->height ? y0 + pool->kernel_h : pool->height;
      const int right = x0 + pool->kernel_w < pool->width ? x0 + pool->kernel_w : pool->width;
      for (c = 0; c < pool->channels; ++c) {
        int32_t sum = 0;
        for (i = top; i < bottom; ++i) {
          const uint8_t *from =
              in + ((uint32_t)i * pool->width + (uint32_t)left) * pool->channels + (uint32_t)c;
          for (j = left; j < right; ++j, from += pool->channels) sum += *from - zero_in;
        }
        *out++ = (uint8_t)(en_round(sum, factor->mantissa, factor->shift, -zero_point,
                                    high - zero_point) +
                           zero_point);
      }
    }
}

void en_run_max_pool(const en_pool *pool, const uint8_t *in, uint8_t *out) {
  int oy, ox, i, j, c;
  for (oy = 0; oy < pool->out_height; ++oy)
    for (ox = 0; ox < pool->out_width; ++ox, out += pool->channels) {
      memset(out, 0, pool->channels);
      for (i = 0; i < pool->kernel_h; ++i)
        for (j = 0; j < pool->kernel_w; ++j) {
          const int y = oy * pool->stride_h - pool->pad_top + i;
          const int x = ox * pool->stride_w - pool->pad_left + j;
          const uint8_t *from;
          if (y < 0 || y >= pool->height || x < 0 || x >= pool->width) continue;
          from = in + ((uint32_t)y * pool->width + (uint32_t)x) * pool->channels;
          for (c = 0; c < pool->channels; ++c)
            if (from[c] > out[c]) out[c] = from[c];
        }
    }
}

void en_run_pick(const uint8_t *in, uint8_t *out, const uint16_t *channels, const uint16_t *rows,
                 const uint16_t *columns, int in_channels, int in_width, int out_channels,
                 int out_height, int out_width, int zero) {
  int y, x, c;
  for (y = 0; y < out_height; ++y)
    for (x = 0; x < out_width; ++x) {
      const int nothing = rows[y] == 0xFFFF || columns[x] == 0xFFFF;
      const uint8_t *from =
          nothing ? in
                  : in + ((uint32_t)rows[y] * (uint32_t)in_width + columns[x]) * (uint32_t)in_channels;
      for (c = 0; c < out_channels; ++c)
        *out++ = nothing || channels[c] == 0xFFFF ? (uint8_t)zero : from[channels[c]];
    }
}

void en_run_spread(const uint8_t *in, uint8_t *out, int height, int width, int channels, int size,
                   int value, int place) {
  int y, x, c;
  for (y = 0; y < height * size; ++y)
    for (x = 0; x < width * size; ++x) {
      const uint8_t *from = in + ((uint32_t)(y / size) * (uint32_t)width + (uint32_t)(x / size)) *
                                     (uint32_t)(channels * size * size);
      from += (y % size * size + x % size) * place;
      for (c = 0; c < channels; ++c) *out++ = from[c * value];
    }
}

void en_run_table(const uint8_t *table, const uint8_t *in, uint8_t *out, uint32_t count) {
  uint32_t i;
  for (i = 0; i < count; ++i) out[i] = table[in[i]];
}

uint8_t en_code(const en_function *function, uint32_t value, uint32_t channel) {
  if (function->codes) {
    const int32_t *from = function->places;
    const int32_t key = en_float_order(value);
    int count = function->count;
    while (count > 0) {
      const int half = count / 2;
      if (from[half] <= key) {
        from += half + 1;
        count -= half + 1;
      } else {
        count = half;
      }
    }
    return function->codes[from - function->places];
  } else {
    const int zero = function->zero_point;
    if (en_float_order(value) < 0) value = en_float_times(value, function->slopes[channel]);
    return (uint8_t)(en_float_round(en_float_over(value, function->scale), -zero,
                                    function->high - zero) +
                     zero);
  }
}

void en_run_function(const en_function *function, const uint8_t *in, uint8_t *out, uint32_t pixels,
                     uint32_t channels) {
  uint32_t p, c, bits;
  for (p = 0; p < pixels; ++p)
    for (c = 0; c < channels; ++c, in += 4) {
      memcpy(&bits, in, 4);
      *out++ = en_code(function, bits, c);
    }
}

void en_run_planar(const uint8_t *in, uint8_t *out, uint32_t pixels, uint32_t channels) {
  uint32_t p, c;
  for (c = 0; c < channels; ++c)
    for (p = 0; p < pixels; ++p) *out++ = in[p * channels + c];
}

void en_run_copy(const uint8_t *in, uint8_t *out, uint32_t pixels, uint32_t channels,
                 uint32_t out_stride, uint32_t to) {
  uint32_t p;
  for (p = 0; p < pixels; ++p) memcpy(out + p * out_stride + to, in + p * channels, channels);
}

void en_run_values(const uint8_t *in, uint8_t *out, uint32_t count, int zero_point,
                   int32_t mantissa, int shift) {
  uint32_t i;
  for (i = 0; i < count; ++i) {
    const uint32_t bits = en_float(in[i] - zero_point, mantissa, shift);
    memcpy(out + 4 * i, &bits, 4);
  }
}

static uint32_t value_bits(const uint8_t *values, int i) {
  uint32_t bits;
  memcpy(&bits, values + 4 * i, 4);
  return bits;
}

int en_argmax(const uint8_t *values, int count) {
  int best = 0, i;
  for (i = 1; i < count; ++i)
    if (en_float_order(value_bits(values, i)) > en_float_order(value_bits(values, best))) best = i;
  return best;
}

/* 2^-(i / 16) in units of 2^-16 */
static const uint32_t powers[17] = {65536, 62757, 60097, 57549, 55109, 52773, 50535, 48393, 46341,
                                    44376, 42495, 40693, 38968, 37316, 35734, 34219, 32768};

/* exp(-(most - value)) in units of 2^-16 */
static uint32_t power_of(uint32_t most, uint32_t value) {
  const uint32_t log2e = 0x3fb8aa3bu, scale = 0x47800000u; /* 2^16 */
  const uint32_t apart = en_float_plus(most, value ^ 0x80000000u);
  const int32_t d = en_float_round(en_float_times(en_float_times(apart, log2e), scale), 0,
                                   17 << 16);
  const uint32_t fraction = (uint32_t)d & 65535u, index = fraction >> 12, rest = fraction & 4095u;
  const uint32_t at = powers[index] - (((powers[index] - powers[index + 1]) * rest) >> 12);
  return at >> (d >> 16);
}

void en_softmax(const uint8_t *values, int count, uint16_t *probabilities) {
  const uint32_t most = value_bits(values, en_argmax(values, count));
  uint32_t total = 0;
  int i;
  for (i = 0; i < count; ++i) total += power_of(most, value_bits(values, i)) >> 4;
  for (i = 0; i < count; ++i) {
    const uint32_t own = power_of(most, value_bits(values, i)) >> 4;
    probabilities[i] = (uint16_t)(((uint64_t)own * 32768u + total / 2) / total);
  }
}
