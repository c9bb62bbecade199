#include "weights.h"

#include <algorithm>

namespace lowbit {

Planes::Planes(const std::vector<int8_t>& codes) {
  if (codes.empty()) return;
  low = *std::min_element(codes.begin(), codes.end());
  high = *std::max_element(codes.begin(), codes.end());
  const bool two = std::all_of(codes.begin(), codes.end(),
                               [&](int8_t c) { return c == low || c == high; });
  if (two) {
    count = 1;
    coefficient = high - low;
    offset = low;
  } else if (low >= -2 && high <= 1) {
    count = 2;
    const int8_t c[4] = {1, -2, 1, -2};
    std::copy(c, c + 4, coefficients);
  } else if (low >= -8 && high <= 7) {
    count = 4;
    const int8_t c[4] = {1, 2, 4, -8};
    std::copy(c, c + 4, coefficients);
  }
}

int planes_of(Layout layout) {
  return layout == Layout::kPlane1 ? 1 : layout == Layout::kPlane2 ? 2
         : layout == Layout::kPlane4 ? 4 : 0;
}

ConvWeights::ConvWeights(const lowbit_conv& s, const int8_t* codes, bool gathered)
    : codes_(codes, codes + static_cast<size_t>(s.outputs) * (s.channels / s.groups) *
                                s.kernel_h * s.kernel_w),
      groups_(s.groups),
      group_in_(s.channels / s.groups),
      group_out_(s.outputs / s.groups),
      kernel_taps_(s.kernel_h * s.kernel_w),
      gathered_(gathered),
      planes(codes_),
      taps(gathered ? 1 : kernel_taps_),
      inner(gathered ? group_in_ * kernel_taps_ : group_in_),
      groups4(ceil_div(inner, 4)),
      depth(count_depth(std::max(1, static_cast<int>(s.largest)))) {}

int ConvWeights::count_depth(int largest) const {
  int worst = 0;
  for (int g = 0; g < groups_; ++g)
    for (int n = 0; n < group_out_; ++n)
      for (int t = 0; t < taps; ++t)
        for (int k = 0; k < inner; k += 2) {
          const int a = code(g, n, t, k), b = k + 1 < inner ? code(g, n, t, k + 1) : 0;
          const int up = std::max(a, 0) + std::max(b, 0), down = std::min(a, 0) + std::min(b, 0);
          worst = std::max({worst, up, -down});
        }
  return worst ? kSumLimit / (worst * largest) : kSumLimit;
}

int8_t ConvWeights::code(int g, int n, int t, int k) const {
  if (gathered_) {
    t = k / group_in_;
    k %= group_in_;
  }
  return codes_[(static_cast<size_t>(g * group_out_ + n) * group_in_ + k) * kernel_taps_ + t];
}

void ConvWeights::pack(const DotKernel& k) {
  vectors = ceil_div(group_out_, k.lanes);
  const size_t row = static_cast<size_t>(taps) * groups4 * k.vector_bytes;
  group_bytes_ = vectors * row;
  block_bytes_ = kVectors * row;
  if (packed_layout_ == static_cast<int>(k.layout) && packed_lanes_ == k.lanes) return;
  packed_.resize(group_bytes_ * groups_);
  for (int g = 0; g < groups_; ++g)
    for (int n = 0; n < group_out_; ++n)
      for (int t = 0; t < taps; ++t)
        for (int c = 0; c < inner; ++c) put(k, g, n, t, c, code(g, n, t, c));
  packed_layout_ = static_cast<int>(k.layout);
  packed_lanes_ = k.lanes;
}

void ConvWeights::put(const DotKernel& k, int g, int n, int t, int c, int8_t code) {
  const int vector = n / k.lanes, lane = n % k.lanes, group = c / 4, j = c % 4;
  const int block = vector / kVectors;
  const int in_block = std::min(kVectors, vectors - block * kVectors);
  uint8_t* to = packed_.data() + at(g, block) +
                ((static_cast<size_t>(t) * groups4 + group) * in_block + vector % kVectors) *
                    k.vector_bytes;
  switch (k.layout) {
    case Layout::kDot4:
      to[lane * 4 + j] = static_cast<uint8_t>(code);
      break;
    case Layout::kDot2:
      reinterpret_cast<int16_t*>(to)[(j / 2 * k.lanes + lane) * 2 + j % 2] = code;
      break;
    case Layout::kPlane1:
      to[lane % 16 * 2 + lane / 16] |= planes.bit(code, 0) << j;
      break;
    case Layout::kPlane2:
    case Layout::kPlane4:
      for (int p = 0; p < planes_of(k.layout); ++p)
        to[lane * planes_of(k.layout) + p] |= planes.bit(code, p) << j;
      break;
  }
}

}  // namespace lowbit
