// Kernels for Arm processors with products of bytes that are summed by four (SDOT, FEAT_DotProd).
#include "internal.h"

#if defined(__aarch64__) && defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>

#include <cstring>

namespace lowbit {

void grouped_neon_dotprod(const GroupedStep&);

namespace {

#include "sweep.inc"

// SDOT wants signed bytes: the activations less 128, and 128 times the weights' sum added back.
template <int P, int V>
inline void dot_product_tile(const Step& s) {
  const int8x16_t one = vdupq_n_s8(1);
  int32x4_t total[P][V * 2], weight_sum[V * 2];
  for (int v = 0; v < V * 2; ++v) {
    weight_sum[v] = vdupq_n_s32(0);
    for (int p = 0; p < P; ++p) total[p][v] = vdupq_n_s32(0);
  }
  for (int t = 0; t < s.taps; ++t)
    for (int g = 0; g < s.groups; ++g) {
      const int8_t* w = reinterpret_cast<const int8_t*>(s.weights + t * s.tap_stride) + g * V * 32;
      for (int v = 0; v < V * 2; ++v) {
        const int8x16_t weights = vld1q_s8(w + v * 16);
        weight_sum[v] = vdotq_s32(weight_sum[v], weights, one);
        for (int p = 0; p < P; ++p) {
          uint32_t four;
          std::memcpy(&four, s.rows[p * s.row_stride + t] + s.offset + g * 4, 4);
          const int8x16_t a = vreinterpretq_s8_u32(vdupq_n_u32(four ^ 0x80808080u));
          total[p][v] = vdotq_s32(total[p][v], weights, a);
        }
      }
    }
  for (int p = 0; p < P; ++p)
    for (int v = 0; v < V * 2; ++v) {
      int32_t* to = s.sums + p * s.sum_stride + v * 4;
      int32x4_t sum = vaddq_s32(total[p][v], vshlq_n_s32(weight_sum[v], 7));
      if (!s.first) sum = vaddq_s32(sum, vld1q_s32(to));
      vst1q_s32(to, sum);
    }
}

template <int V>
void dot_product(const Step& s) {
  Step step = s;
  sweep<4>(step, [](auto p, const Step& tile) { dot_product_tile<p, V>(tile); });
}

const DotKernel kDot = {"dot_product_neon", Prepare::kRaw, Layout::kDot4, 8, 32, 0,
                        {dot_product<1>, dot_product<2>}, {}};

// The rest is that of any AArch64.
Backend make() {
  Backend backend = *neon_backend();
  backend.name = "neon_dotprod";
  backend.dot = {&kDot};
  backend.depthwise = {};
  backend.grouped = grouped_neon_dotprod;
  return backend;
}

}  // namespace

const Backend* neon_dotprod_backend() {
  static const Backend backend = make();
  return &backend;
}

}  // namespace lowbit

#else

namespace lowbit {
const Backend* neon_dotprod_backend() { return nullptr; }
}  // namespace lowbit

#endif
