// What convolutions do with their sums.
#include <cmath>

#include "layers.h"

namespace lowbit {

Outputs::Outputs(const lowbit_conv& s, const int8_t* codes, const int32_t* factor,
                 const int32_t* bias, const float* multiplier)
    : height((s.height + s.pad_top + s.pad_bottom - s.dilation_h * (s.kernel_h - 1) - 1) /
                 s.stride_h + 1),
      width((s.width + s.pad_left + s.pad_right - s.dilation_w * (s.kernel_w - 1) - 1) /
                s.stride_w + 1) {
  const size_t room = s.outputs + 64;
  factor_.assign(room, 1);
  bias_.assign(room, 0);
  multiplier_.assign(room, 0.0f);
  bool factors = false, bounded = true;
  const size_t inner = static_cast<size_t>(s.channels / s.groups) * s.kernel_h * s.kernel_w;
  for (int n = 0; n < s.outputs; ++n) {
    int32_t total = 0;
    for (size_t k = 0; k < inner; ++k) total += codes[n * inner + k];
    factor_[n] = factor[n];
    factors |= factor[n] != 1;
    bias_[n] = bias[n] - s.zero_point * total * factor[n];
    multiplier_[n] = multiplier[n];
    bounded &= std::fabs(multiplier[n]) < 0.99f;
  }
  finish = {factor_.data(), bias_.data(), multiplier_.data(), 1, factors, s.kind, s.function,
            s.out_zero_point, s.scale, static_cast<float>(s.out_low - s.out_zero_point),
            static_cast<float>(s.out_high - s.out_zero_point), bounded};
}

}  // namespace lowbit
