/* float32 arithmetic in integers, rounded to nearest even. Not part of the interface. */
#ifndef EDGE_NAS_ARITHMETIC_H
#define EDGE_NAS_ARITHMETIC_H

#include <stdint.h>

/* Rounds acc * mantissa * 2^-shift as float32 does, then to a whole number, low to high. */
int32_t en_round_exactly(int32_t acc, int32_t mantissa, int shift, int32_t low, int32_t high);

/* The same for a shift of 32 + less, less from 1 to 31; only what lies close to the middle of two
 * numbers needs the long way. */
static inline int32_t en_round_short(int32_t acc, int32_t mantissa, int less, int32_t low,
                                     int32_t high) {
  const int64_t product = (int64_t)acc * mantissa;
  const int32_t top = (int32_t)(product >> 32);
  const uint32_t fraction = ((uint32_t)top << (32 - less)) | ((uint32_t)product >> less);
  const int32_t rounded = (top >> less) + (int32_t)(fraction >> 31);
  if (rounded < low) return low;
  if (rounded > high) return high;
  /* Of at most 8 bits before the point, float32 is off by less than 2^-14. */
  if ((uint32_t)(fraction + 0x80000000u + (1u << 18)) >= (1u << 19)) return rounded;
  return en_round_exactly(acc, mantissa, 32 + less, low, high);
}

/* The same for any shift. */
static inline int32_t en_round(int32_t acc, int32_t mantissa, int shift, int32_t low,
                               int32_t high) {
  int less = shift - 32;
  if (less < 1 && less > -7 && acc > -(1 << 24) && acc < (1 << 24)) { /* large multipliers */
    acc *= 1 << (1 - less);
    less = 1;
  }
  if (less >= 1) return en_round_short(acc, mantissa, less, low, high);
  return en_round_exactly(acc, mantissa, shift, low, high);
}

/* acc * mantissa * 2^-shift as float32 bits. */
uint32_t en_float(int32_t acc, int32_t mantissa, int shift);
uint32_t en_float_times(uint32_t a, uint32_t b);
uint32_t en_float_plus(uint32_t a, uint32_t b);
uint32_t en_float_over(uint32_t a, uint32_t b);
/* code * ratio + addend, rounded once. */
uint32_t en_float_fma(uint8_t code, uint32_t ratio, uint32_t addend);
/* To a whole number, half to even, low to high. */
int32_t en_float_round(uint32_t a, int32_t low, int32_t high);
/* A number whose order is that of the float32 number. */
static inline int32_t en_float_order(uint32_t a) {
  const int32_t size = (int32_t)(a & 0x7fffffffu);
  return (a >> 31) ? -size : size;
}

#endif
