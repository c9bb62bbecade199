// The weights of a convolution: bit planes, and their codes packed for a kernel at their own bits.
#pragma once
#include <memory>

#include "layers.h"

namespace lowbit {

constexpr int kSumLimit = 32767;  // of a 16-bit sum

// Weights as bit planes: code = coefficient * sum(plane coefficients) + offset.
struct Planes {
  int count = 0;  // 0: not as at most four planes
  int8_t coefficients[4] = {1, 0, 0, 0};
  int32_t coefficient = 1, offset = 0;
  int low = 0, high = 0;

  Planes(const int8_t* codes, size_t size);
  int bit(int8_t code, int plane) const {
    return count == 1 ? (code == high && high != low) : (code >> plane) & 1;
  }
  int8_t code(const int* bits) const;
};

// Bytes that a kernel reads, of one unit of a field; and how many `plain` of them are kept in.
size_t packed_unit(const Field&);
size_t packed_size(const Field&, size_t plain);
void pack_fields(const Field&, const uint8_t* plain, size_t size, uint8_t* to);
// Numbers of 16 bits from bytes with a sign.
void widen_bytes(const uint8_t* from, uint8_t* to, size_t bytes);

// Bit planes of a layout, 0 where it holds whole codes.
int planes_of(Layout);

class ConvWeights {
 private:  // first: what follows is counted from these
  const int groups_, group_in_, group_out_, kernel_taps_;
  const bool gathered_;

 public:
  // codes: (outputs, channels / groups, kernel_h, kernel_w). With `gathered` all taps are one row.
  // The codes are not kept: another kernel's layout is made from the packed ones.
  ConvWeights(const lowbit_conv&, const int8_t* codes, bool gathered);

  // Lay the codes out as `kernel` reads them. Kernels of one layout share the result.
  void pack(const DotKernel& kernel);
  // Forget every layout but the last; while kernels are compared all are held.
  void settle();

  // Bytes of a block of kVectors vectors of outputs, as a kernel reads it.
  size_t plain_bytes(int block) const;
  // The weights of a block within group `g`, from byte `from` up to `to` of the whole block, are
  // written as a kernel reads them; `room` holds plain_bytes(block) + kUnpackSlack bytes. Where
  // they are not compressed nothing is copied. Returns the address of byte `from`.
  const uint8_t* unpack(const Backend&, int g, int block, size_t from, size_t to,
                        uint8_t* room) const;
  // The same as they are kept; `from` is at the beginning of a unit.
  const uint8_t* kept(int g, int block, size_t from) const;
  const Field& field() const { return current_->field; }
  bool compressed() const { return current_->field.bits != 8; }
  size_t packed_bytes() const { return current_->bytes.size(); }

  const Planes planes;
  const int taps, inner;  // of what a kernel reads: rows, and channels of a row
  const int groups4;      // of four channels in a row
  const int depth;        // groups of products that 16-bit sums of adjacent pairs hold
  int vectors = 0;        // of outputs of a group, of the kernel packed for

 private:
  struct Packed {
    Layout layout;
    int lanes, vector_bytes, vectors;
    Field field;
    Buffer bytes;
    size_t block(int g, int block, const ConvWeights&) const;  // bytes to the compressed block
    size_t plain(int block, const ConvWeights&) const;
  };
  using Codes = std::vector<int8_t>;  // in the order of the constructor

  int count_depth(const int8_t* codes, int largest) const;
  // Tap and channel of a gathered row are one index: tap * channels + channel.
  size_t index(int g, int n, int t, int k) const;
  std::unique_ptr<Packed> packed(const DotKernel&, const int8_t* codes) const;
  Codes codes(const Packed&) const;
  Field field_of(Layout) const;
  template <typename Visit>
  void every(const Packed&, int block, const Visit& visit) const;

  std::vector<std::unique_ptr<Packed>> held_;
  Packed* current_ = nullptr;
  Codes first_;  // until the first kernel is packed for
};

}  // namespace lowbit
