// What a convolution must satisfy, and which layer runs it.
#include <climits>
#include <cstdlib>
#include <stdexcept>

#include "layers.h"

namespace lowbit {
namespace {

void check_conv(const lowbit_conv& s, const int8_t* weights, const int32_t* factor,
                const int32_t* bias, const Buffer& in, const Buffer& out) {
  const auto check = [](bool good, const char* reason) {
    if (!good) throw std::invalid_argument(reason);
  };
  check(s.batch > 0 && s.height > 0 && s.width > 0 && s.channels > 0 && s.outputs > 0,
        "a convolution needs positive sizes");
  check(s.kernel_h > 0 && s.kernel_w > 0 && s.stride_h > 0 && s.stride_w > 0 &&
            s.dilation_h > 0 && s.dilation_w > 0,
        "kernel, strides and dilations must be positive");
  check(s.pad_top >= 0 && s.pad_left >= 0 && s.pad_bottom >= 0 && s.pad_right >= 0,
        "padding must not be negative");
  check(s.groups > 0 && s.channels % s.groups == 0 && s.outputs % s.groups == 0,
        "groups must divide the channels");
  check(s.largest >= 0 && s.largest <= 255 && s.zero_point >= 0 && s.zero_point <= s.largest,
        "the zero point must lie within the input's codes, 0..255");
  check(s.out_low >= 0 && s.out_low <= s.out_high && s.out_high <= 255 && s.out_zero_point >= 0 &&
            s.out_zero_point <= 255,
        "output codes lie within 0..255");
  check(s.kind >= LOWBIT_CODES && s.kind <= LOWBIT_SUMS && s.function >= LOWBIT_IDENTITY &&
            s.function <= LOWBIT_SILU,
        "unknown kind of output or function");
  const int64_t tall = int64_t{s.height} + s.pad_top + s.pad_bottom -
                       int64_t{s.dilation_h} * (s.kernel_h - 1) - 1;
  const int64_t wide = int64_t{s.width} + s.pad_left + s.pad_right -
                       int64_t{s.dilation_w} * (s.kernel_w - 1) - 1;
  check(tall >= 0 && wide >= 0, "the kernel is larger than the padded input");
  // The largest sum of any partial product, by the actual weights.
  const int64_t inner = int64_t{s.channels / s.groups} * s.kernel_h * s.kernel_w;
  for (int n = 0; n < s.outputs; ++n) {
    int64_t total = 0;
    for (int64_t k = 0; k < inner; ++k) total += std::abs(weights[n * inner + k]);
    check(factor[n] >= 1 && total * s.largest * factor[n] + std::abs(int64_t{bias[n]}) < INT32_MAX,
          "the sum of an output may not fit 32 bits");
  }
  const int64_t in_bytes = int64_t{s.batch} * s.height * s.width * s.channels;
  check(static_cast<int64_t>(in.size()) >= in_bytes, "the input buffer is too small");
  const int64_t out_bytes = int64_t{s.batch} * (tall / s.stride_h + 1) * (wide / s.stride_w + 1) *
                            s.outputs * (s.kind == LOWBIT_CODES ? 1 : 4);
  check(static_cast<int64_t>(out.size()) >= out_bytes, "the output buffer is too small");
}

}  // namespace

std::unique_ptr<Layer> make_conv(const lowbit_conv& s, const int8_t* weights,
                                 const int32_t* factor, const int32_t* bias,
                                 const float* multiplier, const Buffer& in, Buffer& out,
                                 const std::vector<const Backend*>& backends) {
  check_conv(s, weights, factor, bias, in, out);
  const bool depthwise = s.groups > 1 && s.channels == s.groups && s.outputs == s.groups;
  const auto make = depthwise ? make_depthwise : make_dense;
  return make(s, weights, factor, bias, multiplier, in, out, backends);
}

}  // namespace lowbit
