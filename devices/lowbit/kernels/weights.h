// The weights of a convolution: their codes, the same as bit planes, and packed for a kernel.
#pragma once
#include "layers.h"

namespace lowbit {

constexpr int kSumLimit = 32767;  // of a 16-bit sum

// Weights as bit planes: code = coefficient * sum(plane coefficients) + offset.
struct Planes {
  int count = 0;  // 0: not as at most four planes
  int8_t coefficients[4] = {1, 0, 0, 0};
  int32_t coefficient = 1, offset = 0;
  int low = 0, high = 0;

  explicit Planes(const std::vector<int8_t>& codes);
  int bit(int8_t code, int plane) const {
    return count == 1 ? (code == high && high != low) : (code >> plane) & 1;
  }
};

// Bit planes of a layout, 0 where it holds whole codes.
int planes_of(Layout);

class ConvWeights {
 private:  // first: what follows is counted from these
  const std::vector<int8_t> codes_;
  const int groups_, group_in_, group_out_, kernel_taps_;
  const bool gathered_;

 public:
  // codes: (outputs, channels / groups, kernel_h, kernel_w). With `gathered` all taps are one row.
  ConvWeights(const lowbit_conv&, const int8_t* codes, bool gathered);

  // Lay the codes out as `kernel` reads them. Kernels of one layout share the result.
  void pack(const DotKernel& kernel);
  // The packed weights of a block of kVectors vectors of outputs, within group `g`.
  const uint8_t* block(int g, int block) const { return packed_.data() + at(g, block); }

  const Planes planes;
  const int taps, inner;  // of what a kernel reads: rows, and channels of a row
  const int groups4;      // of four channels in a row
  const int depth;        // groups of products that 16-bit sums of adjacent pairs hold
  int vectors = 0;        // of outputs of a group, of the kernel packed for

 private:
  int count_depth(int largest) const;
  // Tap and channel of a gathered row are one index: tap * channels + channel.
  int8_t code(int g, int n, int t, int k) const;
  void put(const DotKernel&, int g, int n, int t, int c, int8_t code);
  size_t at(int g, int block) const { return g * group_bytes_ + block * block_bytes_; }

  Buffer packed_;
  int packed_layout_ = -1, packed_lanes_ = 0;
  size_t group_bytes_ = 0, block_bytes_ = 0;
};

}  // namespace lowbit
