#include "weights.h"

#include <algorithm>
#include <cstring>

namespace lowbit {

Planes::Planes(const int8_t* codes, size_t size) {
  if (!size) return;
  const int8_t* const end = codes + size;
  low = *std::min_element(codes, end);
  high = *std::max_element(codes, end);
  const bool two = std::all_of(codes, end, [&](int8_t c) { return c == low || c == high; });
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

int8_t Planes::code(const int* bits) const {
  if (count == 1) return static_cast<int8_t>(bits[0] ? high : low);
  int total = 0;
  for (int p = 0; p < count; ++p) total += bits[p] * coefficients[p];
  return static_cast<int8_t>(total);
}

size_t packed_unit(const Field& f) { return f.bits == 3 ? 256 : f.bits < 8 ? 256 / f.bits : 1; }

size_t packed_size(const Field& f, size_t plain) {
  if (f.bits >= 8) return f.bits == 8 ? plain : plain / 2;
  constexpr size_t kWhole = 256;  // a whole number of units of any bits, as packed kernels read them
  return (plain + kWhole - 1) / kWhole * kWhole * f.bits / 8;
}

void pack_fields(const Field& f, const uint8_t* plain, size_t size, uint8_t* to) {
  if (f.bits == 8) {
    std::memcpy(to, plain, size);
    return;
  }
  if (f.bits == 16) {
    const int16_t* wide = reinterpret_cast<const int16_t*>(plain);
    for (size_t i = 0; i < size / 2; ++i) to[i] = static_cast<uint8_t>(wide[i]);
    return;
  }
  std::memset(to, 0, packed_size(f, size));
  const size_t unit = packed_unit(f), kept = unit * f.bits / 8;
  for (size_t i = 0; i < size; ++i) {
    const size_t in_unit = i % unit, j = in_unit / 32, lane = in_unit % 32;
    uint8_t* at = to + i / unit * kept;
    const uint8_t low = static_cast<uint8_t>(f.low);
    const int field = f.bits == 1 ? plain[i] != low : static_cast<uint8_t>(plain[i] - low);
    if (f.bits == 3) {
      at[j / 4 * 32 + lane] |= static_cast<uint8_t>((field & 3) << (j % 4 * 2));
      at[64 + lane] |= static_cast<uint8_t>((field >> 2) << j);
    } else {
      at[lane] |= static_cast<uint8_t>(field << (j * f.bits));
    }
  }
}

void widen_bytes(const uint8_t* from, uint8_t* to, size_t bytes) {
  int16_t* wide = reinterpret_cast<int16_t*>(to);
  for (size_t i = 0; i < bytes / 2; ++i) wide[i] = static_cast<int8_t>(from[i]);
}

int planes_of(Layout layout) {
  return layout == Layout::kPlane1 ? 1 : layout == Layout::kPlane2 ? 2
         : layout == Layout::kPlane4 ? 4 : 0;
}

ConvWeights::ConvWeights(const lowbit_conv& s, const int8_t* codes, bool gathered)
    : groups_(s.groups),
      group_in_(s.channels / s.groups),
      group_out_(s.outputs / s.groups),
      kernel_taps_(s.kernel_h * s.kernel_w),
      gathered_(gathered),
      planes(codes, static_cast<size_t>(s.outputs) * group_in_ * kernel_taps_),
      taps(gathered ? 1 : kernel_taps_),
      inner(gathered ? group_in_ * kernel_taps_ : group_in_),
      groups4(ceil_div(inner, 4)),
      depth(count_depth(codes, std::max(1, static_cast<int>(s.largest)))),
      first_(codes, codes + static_cast<size_t>(s.outputs) * group_in_ * kernel_taps_) {}

int ConvWeights::count_depth(const int8_t* codes, int largest) const {
  int worst = 0;
  for (int g = 0; g < groups_; ++g)
    for (int n = 0; n < group_out_; ++n)
      for (int t = 0; t < taps; ++t)
        for (int k = 0; k < inner; k += 2) {
          const int a = codes[index(g, n, t, k)];
          const int b = k + 1 < inner ? codes[index(g, n, t, k + 1)] : 0;
          const int up = std::max(a, 0) + std::max(b, 0), down = std::min(a, 0) + std::min(b, 0);
          worst = std::max({worst, up, -down});
        }
  return worst ? kSumLimit / (worst * largest) : kSumLimit;
}

size_t ConvWeights::index(int g, int n, int t, int k) const {
  if (gathered_) {
    t = k / group_in_;
    k %= group_in_;
  }
  return (static_cast<size_t>(g * group_out_ + n) * group_in_ + k) * kernel_taps_ + t;
}

// An index of a table is a nibble; a code takes the bits of its range.
Field ConvWeights::field_of(Layout layout) const {
  if (planes_of(layout)) return {4, 0, 0};
  if (layout == Layout::kDot2) return {16, 0, 0};
  // Whole groups of four are read: what is behind the last channel counts 0.
  const bool zero = inner % 4 == 0 || planes.low == 0 || planes.high == 0;
  if (planes.count == 1 && zero)
    return {1, static_cast<int8_t>(planes.low), static_cast<uint8_t>(planes.coefficient)};
  const int low = std::min(planes.low, 0), range = std::max(planes.high, 0) - low;
  const int bits = range < 4 ? 2 : range < 8 ? 3 : range < 16 ? 4 : 8;
  return {bits, static_cast<int8_t>(bits == 8 ? 0 : low), 1};
}

size_t ConvWeights::Packed::plain(int block, const ConvWeights& w) const {
  const int in_block = std::min(kVectors, vectors - block * kVectors);
  return static_cast<size_t>(w.taps) * w.groups4 * in_block * vector_bytes;
}

size_t ConvWeights::Packed::block(int g, int block, const ConvWeights& w) const {
  const int blocks = ceil_div(vectors, kVectors);
  const size_t whole = packed_size(field, plain(0, w));
  const size_t last = packed_size(field, plain(blocks - 1, w));
  return g * ((blocks - 1) * whole + last) + block * whole;
}

// Calls visit(first byte of the vector, n, t, c) for each code of a block.
template <typename Visit>
void ConvWeights::every(const Packed& p, int block, const Visit& visit) const {
  const int first = block * kVectors * p.lanes;
  const int in_block = std::min(kVectors, p.vectors - block * kVectors);
  const int last = std::min(group_out_, first + in_block * p.lanes);
  for (int n = first; n < last; ++n)
    for (int t = 0; t < taps; ++t)
      for (int c = 0; c < inner; ++c)
        visit(((static_cast<size_t>(t) * groups4 + c / 4) * in_block + (n - first) / p.lanes) *
                  p.vector_bytes,
              n, t, c);
}

std::unique_ptr<ConvWeights::Packed> ConvWeights::packed(const DotKernel& k,
                                                         const int8_t* codes) const {
  auto made = std::make_unique<Packed>();
  Packed& p = *made;
  p.layout = k.layout;
  p.lanes = k.lanes;
  p.vector_bytes = k.vector_bytes;
  p.vectors = ceil_div(group_out_, k.lanes);
  p.field = field_of(k.layout);
  const int blocks = ceil_div(p.vectors, kVectors), count = planes_of(k.layout);
  p.bytes.resize(p.block(groups_, 0, *this));
  std::vector<uint8_t> plain;
  for (int g = 0; g < groups_; ++g)
    for (int block = 0; block < blocks; ++block) {
      plain.assign(p.plain(block, *this), 0);
      if (p.field.bits == 1)  // outputs that are not there have a code, too; nothing uses it
        std::fill(plain.begin(), plain.end(), inner % 4 ? 0 : static_cast<uint8_t>(p.field.low));
      every(p, block, [&](size_t at, int n, int t, int c) {
        const int lane = n % p.lanes, j = c % 4;
        const int8_t code = codes[index(g, n, t, c)];
        uint8_t* to = plain.data() + at;
        switch (k.layout) {
          case Layout::kDot4:
            to[lane * 4 + j] = static_cast<uint8_t>(code);
            break;
          case Layout::kDot2:
            reinterpret_cast<int16_t*>(to)[(j / 2 * p.lanes + lane) * 2 + j % 2] = code;
            break;
          case Layout::kPlane1:
            to[lane % 16 * 2 + lane / 16] |= static_cast<uint8_t>(planes.bit(code, 0) << j);
            break;
          case Layout::kPlane2:
          case Layout::kPlane4:
            for (int q = 0; q < count; ++q)
              to[lane * count + q] |= static_cast<uint8_t>(planes.bit(code, q) << j);
            break;
        }
      });
      pack_fields(p.field, plain.data(), plain.size(), p.bytes.data() + p.block(g, block, *this));
    }
  return made;
}

ConvWeights::Codes ConvWeights::codes(const Packed& p) const {
  Codes made(static_cast<size_t>(groups_) * group_out_ * group_in_ * kernel_taps_);
  const Backend& backend = *portable_backend();
  std::vector<uint8_t> plain;
  const int count = planes_of(p.layout);
  for (int g = 0; g < groups_; ++g)
    for (int block = 0; block < ceil_div(p.vectors, kVectors); ++block) {
      plain.resize(p.plain(block, *this) + kUnpackSlack);
      const uint8_t* from = p.bytes.data() + p.block(g, block, *this);
      if (p.field.bits < 8)
        backend.unpack(p.field, from, plain.data(), p.plain(block, *this));
      else if (p.field.bits == 8)
        std::memcpy(plain.data(), from, p.plain(block, *this));
      else
        widen_bytes(from, plain.data(), p.plain(block, *this));
      every(p, block, [&](size_t at, int n, int t, int c) {
        const int lane = n % p.lanes, j = c % 4;
        const uint8_t* to = plain.data() + at;
        int bits[4] = {};
        int8_t code = 0;
        switch (p.layout) {
          case Layout::kDot4:
            code = static_cast<int8_t>(to[lane * 4 + j]);
            break;
          case Layout::kDot2:
            code = static_cast<int8_t>(
                reinterpret_cast<const int16_t*>(to)[(j / 2 * p.lanes + lane) * 2 + j % 2]);
            break;
          case Layout::kPlane1:
            bits[0] = to[lane % 16 * 2 + lane / 16] >> j & 1;
            code = planes.code(bits);
            break;
          case Layout::kPlane2:
          case Layout::kPlane4:
            for (int q = 0; q < count; ++q) bits[q] = to[lane * count + q] >> j & 1;
            code = planes.code(bits);
            break;
        }
        made[index(g, n, t, c)] = code;
      });
    }
  return made;
}

void ConvWeights::pack(const DotKernel& k) {
  const auto same = [&](const auto& p) { return p->layout == k.layout && p->lanes == k.lanes; };
  const auto found = std::find_if(held_.begin(), held_.end(), same);
  if (found != held_.end()) {
    current_ = found->get();
  } else {
    held_.push_back(current_ ? packed(k, codes(*current_).data()) : packed(k, first_.data()));
    current_ = held_.back().get();
    Codes().swap(first_);
  }
  vectors = current_->vectors;
}

void ConvWeights::settle() {
  held_.erase(std::remove_if(held_.begin(), held_.end(),
                             [&](const auto& p) { return p.get() != current_; }),
              held_.end());
}

const uint8_t* ConvWeights::kept(int g, int block, size_t from) const {
  return current_->bytes.data() + current_->block(g, block, *this) +
         from * current_->field.bits / 8;
}

size_t ConvWeights::plain_bytes(int block) const { return current_->plain(block, *this); }

const uint8_t* ConvWeights::unpack(const Backend& backend, int g, int block, size_t from,
                                   size_t to, uint8_t* room) const {
  const Packed& p = *current_;
  const uint8_t* dense = p.bytes.data() + p.block(g, block, *this);
  if (p.field.bits == 8) return dense + from;
  if (p.field.bits == 16) {  // kept as bytes, read as 16-bit numbers
    widen_bytes(dense + from / 2, room, to - from);
    return room;
  }
  const size_t unit = packed_unit(p.field), start = from / unit * unit;
  backend.unpack(p.field, dense + start * p.field.bits / 8, room, to - start);
  return room + (from - start);
}

}  // namespace lowbit
