// Grouped linear layers in plain C++: the meaning of the other kernels.
#include <cmath>
#include <cstring>

#include "internal.h"

namespace lowbit {
namespace {

float from_half(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16, rest = half & 0x7fff;
  const uint32_t exponent = rest >> 10, fraction = rest & 1023;
  float value;
  if (exponent == 0) {  // subnormal
    value = std::ldexp(static_cast<float>(fraction), -24);
    return sign ? -value : value;
  }
  const uint32_t bits = sign | (exponent == 31 ? 255u << 23 : (exponent + 112) << 23) | fraction << 13;
  std::memcpy(&value, &bits, 4);
  return value;
}

void block(const GroupedStep& s) {
  const Field field = {s.bits, 0, 1};
  const size_t plane_bytes = static_cast<size_t>(s.steps) * 32 * s.bits;
  const size_t stride = s.sum_stride;
  for (int r = 0; r < s.rows; ++r) std::memset(s.sums + r * stride, 0, sizeof(float) * kBlockOutputs);
  const uint8_t* weights = s.weights;
  for (int g = 0; g < s.groups; ++g) {
    for (int plane = 0; plane < s.planes; ++plane, weights += plane_bytes) {
      portable_backend()->unpack(field, weights, s.room, static_cast<size_t>(s.steps) * 256);
      const uint16_t* scales = s.scales + (static_cast<size_t>(g) * s.planes + plane) * kBlockOutputs;
      for (int r = 0; r < s.rows; ++r) {
        const int8_t* a = s.codes + r * s.row_bytes + static_cast<size_t>(g) * s.steps * kStepChannels;
        int32_t total[kBlockOutputs] = {};
        const uint8_t* u = s.room;
        for (int i = 0; i < s.steps * 4; ++i, a += 4)
          for (int n = 0; n < kBlockOutputs; ++n, u += 4)
            total[n] += u[0] * a[0] + u[1] * a[1] + u[2] * a[2] + u[3] * a[3];
        float* sums = s.sums + r * stride;
        const float zero = s.zeros[static_cast<size_t>(r) * s.groups + g];
        for (int n = 0; n < kBlockOutputs; ++n)
          sums[n] = __builtin_fmaf(static_cast<float>(total[n]) - zero, from_half(scales[n]), sums[n]);
      }
    }
    if (!s.mins) continue;
    for (int r = 0; r < s.rows; ++r)
      for (int n = 0; n < kBlockOutputs; ++n) {
        float& sum = s.sums[r * stride + n];
        sum = __builtin_fmaf(from_half(s.mins[static_cast<size_t>(g) * kBlockOutputs + n]),
                             s.totals[static_cast<size_t>(r) * s.groups + g], sum);
      }
  }
}

}  // namespace

void grouped_portable(const GroupedStep& s) {
  block(s);
}

}  // namespace lowbit
