/* float32 arithmetic in integers. A number is (-1)^sign * size * 2^exponent; results are normal
 * or zero, which holds for all that networks of codes compute. */
#include "edge_nas_arithmetic.h"

static int bits_of(uint64_t a) {
  int bits = 0;
  if (a >> 32) { bits += 32; a >>= 32; }
  if (a >> 16) { bits += 16; a >>= 16; }
  if (a >> 8) { bits += 8; a >>= 8; }
  while (a) { ++bits; a >>= 1; }
  return bits;
}

/* a / 2^shift, half to even. */
static uint64_t halved(uint64_t a, int shift) {
  uint64_t whole, rest, half;
  if (shift <= 0) return a << -shift;
  if (shift > 63) return 0;
  whole = a >> shift;
  rest = a & (((uint64_t)1 << shift) - 1);
  half = (uint64_t)1 << (shift - 1);
  return whole + (rest > half || (rest == half && (whole & 1)));
}

static uint32_t packed(int negative, uint64_t size, int exponent) {
  const uint32_t sign = negative ? 0x80000000u : 0u;
  int extra;
  if (size == 0) return sign;
  extra = bits_of(size) - 24;
  size = halved(size, extra);
  exponent += extra;
  if (size >> 24) {
    size >>= 1;
    ++exponent;
  }
  exponent += 150;
  if (exponent <= 0) return sign;
  if (exponent >= 255) return sign | 0x7f800000u;
  return sign | ((uint32_t)exponent << 23) | ((uint32_t)size & 0x7fffffu);
}

static uint32_t size_of(uint32_t a) {
  return (a & 0x7f800000u) ? (a & 0x7fffffu) | 0x800000u : 0u;
}

static int exponent_of(uint32_t a) { return (int)((a >> 23) & 255u) - 150; }

static uint32_t size_of_int(int32_t a) { return a < 0 ? 0u - (uint32_t)a : (uint32_t)a; }

uint32_t en_float(int32_t acc, int32_t mantissa, int shift) {
  uint64_t size = size_of_int(acc);
  int exponent = -shift;
  const int extra = bits_of(size) - 24;
  if (extra > 0) {
    size = halved(size, extra);
    exponent += extra;
  }
  return packed(acc < 0, size * (uint32_t)mantissa, exponent);
}

uint32_t en_float_times(uint32_t a, uint32_t b) {
  return packed((int)((a ^ b) >> 31), (uint64_t)size_of(a) * size_of(b),
                exponent_of(a) + exponent_of(b));
}

/* x * 2^ex + y * 2^ey of signed sizes below 2^32 and 2^24. */
static uint32_t sum_of(int64_t x, int ex, int64_t y, int ey) {
  const int apart = ex - ey;
  int64_t total;
  int exponent;
  if (x == 0) {
    total = y;
    exponent = ey;
  } else if (y == 0) {
    total = x;
    exponent = ex;
  } else if (apart > 30) { /* y only says on which side of x the sum lies */
    total = x * ((int64_t)1 << 30) + (y < 0 ? -1 : 1);
    exponent = ex - 30;
  } else if (apart < -38) {
    total = y * ((int64_t)1 << 38) + (x < 0 ? -1 : 1);
    exponent = ey - 38;
  } else if (apart >= 0) {
    total = x * ((int64_t)1 << apart) + y;
    exponent = ey;
  } else {
    total = y * ((int64_t)1 << -apart) + x;
    exponent = ex;
  }
  return packed(total < 0, total < 0 ? 0u - (uint64_t)total : (uint64_t)total, exponent);
}

static int64_t signed_size(uint32_t a) {
  return (a >> 31) ? -(int64_t)size_of(a) : (int64_t)size_of(a);
}

uint32_t en_float_plus(uint32_t a, uint32_t b) {
  return sum_of(signed_size(a), exponent_of(a), signed_size(b), exponent_of(b));
}

uint32_t en_float_fma(uint8_t code, uint32_t ratio, uint32_t addend) {
  return sum_of(signed_size(ratio) * code, exponent_of(ratio), signed_size(addend),
                exponent_of(addend));
}

uint32_t en_float_over(uint32_t a, uint32_t b) {
  const uint64_t over = (uint64_t)size_of(a) << 32;
  const uint32_t under = size_of(b);
  /* What remains only says on which side of a middle the quotient lies. */
  const uint64_t size = (over / under) * 2 + (over % under != 0);
  return packed((int)((a ^ b) >> 31), size, exponent_of(a) - exponent_of(b) - 33);
}

int32_t en_float_round(uint32_t a, int32_t low, int32_t high) {
  const int exponent = exponent_of(a);
  const int negative = (int)(a >> 31);
  int64_t whole;
  if (exponent > 7) return size_of(a) == 0 ? 0 : negative ? low : high;
  whole = (int64_t)halved(size_of(a), -exponent);
  if (negative) whole = -whole;
  return whole < low ? low : whole > high ? high : (int32_t)whole;
}

int32_t en_round_exactly(int32_t acc, int32_t mantissa, int shift, int32_t low, int32_t high) {
  return en_float_round(en_float(acc, mantissa, shift), low, high);
}
