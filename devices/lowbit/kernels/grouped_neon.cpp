// Grouped linear layers for Arm with NEON (AArch64).
#include "internal.h"

#if defined(__aarch64__) && defined(__ARM_NEON)
#include <arm_neon.h>

#include <cstring>

namespace lowbit {
namespace {

inline float32x4_t halves(const uint16_t* p) {
  return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
}

// sum[i] += the products of four channels with outputs 4 i .. 4 i + 3.
inline void four_channels(const uint8_t* u, const int8_t* a, int32x4_t (&sum)[4]) {
  uint32_t four;
  std::memcpy(&four, a, 4);
  const int8x16_t x = vreinterpretq_s8_u32(vdupq_n_u32(four));
  for (int i = 0; i < 4; ++i) {
    const int8x16_t w = vreinterpretq_s8_u8(vld1q_u8(u + 16 * i));  // within 0..15
#if defined(__ARM_FEATURE_DOTPROD)
    sum[i] = vdotq_s32(sum[i], w, x);
#else
    const int16x8_t low = vmull_s8(vget_low_s8(w), vget_low_s8(x));
    const int16x8_t high = vmull_s8(vget_high_s8(w), vget_high_s8(x));
    sum[i] = vpadalq_s16(sum[i], vpaddq_s16(low, high));
#endif
  }
}

void block(const GroupedStep& s) {
  const size_t stride = s.sum_stride;
  for (int r = 0; r < s.rows; ++r) std::memset(s.sums + r * stride, 0, sizeof(float) * kBlockOutputs);
  const size_t plane_bytes = static_cast<size_t>(s.steps) * 32 * s.bits;
  const uint8_t* weights = s.weights;
  for (int g = 0; g < s.groups; ++g) {
    for (int plane = 0; plane < s.planes; ++plane, weights += plane_bytes) {
      __builtin_prefetch(weights + plane_bytes);
      neon_backend()->unpack({s.bits, 0, 1}, weights, s.room, static_cast<size_t>(s.steps) * 256);
      const uint16_t* scales = s.scales + (static_cast<size_t>(g) * s.planes + plane) * kBlockOutputs;
      for (int row = 0; row < s.rows; ++row) {
        const int8_t* a = s.codes + row * s.row_bytes + static_cast<size_t>(g) * s.steps * kStepChannels;
        int32x4_t sum[4] = {vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0)};
        for (int i = 0; i < s.steps * 4; ++i) four_channels(s.room + i * 64, a + i * 4, sum);
        const float32x4_t zero = vdupq_n_f32(s.zeros[static_cast<size_t>(row) * s.groups + g]);
        for (int i = 0; i < 4; ++i) {
          float* to = s.sums + row * stride + 4 * i;
          const float32x4_t f = vsubq_f32(vcvtq_f32_s32(sum[i]), zero);
          vst1q_f32(to, vfmaq_f32(vld1q_f32(to), f, halves(scales + 4 * i)));
        }
      }
    }
    if (!s.mins) continue;
    for (int row = 0; row < s.rows; ++row) {
      const float32x4_t total = vdupq_n_f32(s.totals[static_cast<size_t>(row) * s.groups + g]);
      for (int i = 0; i < 4; ++i) {
        float* to = s.sums + row * stride + 4 * i;
        const uint16_t* low = s.mins + static_cast<size_t>(g) * kBlockOutputs + 4 * i;
        vst1q_f32(to, vfmaq_f32(vld1q_f32(to), halves(low), total));
      }
    }
  }
}

}  // namespace

void grouped_neon(const GroupedStep& s) {
  block(s);
}

}  // namespace lowbit

#endif
