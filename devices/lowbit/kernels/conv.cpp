// Convolutions and linear layers: packing of weights, and the loops around the register tiles.
#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "layers.h"

namespace lowbit {
namespace {

constexpr int kSmall = 8;          // input channels below which taps are gathered into one row
constexpr int kTilePixels = 32;    // output pixels worked on at once, about
constexpr size_t kTileBytes = 48 << 10;  // of prepared activations, about
constexpr int kChunkGroups = 256;  // groups of a chunk: its weights stay in the nearest cache
constexpr int kSumLimit = 32767;

int ceil_div(int a, int b) { return (a + b - 1) / b; }

// Weights as bit planes: code = coefficient * sum(plane coefficients) + offset.
struct Planes {
  int count = 0;  // 0: not as at most four planes
  int8_t coefficients[4] = {1, 0, 0, 0};
  int32_t coefficient = 1, offset = 0;
  int low = 0, high = 0;

  explicit Planes(const std::vector<int8_t>& codes) {
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
  int bit(int8_t code, int plane) const {
    return count == 1 ? (code == high && high != low) : (code >> plane) & 1;
  }
};

int planes_of(Layout layout) {
  return layout == Layout::kPlane1 ? 1 : layout == Layout::kPlane2 ? 2
         : layout == Layout::kPlane4 ? 4 : 0;
}

class Conv : public Layer {
 public:
  Conv(const lowbit_conv& spec, const int8_t* weights, const int32_t* factor,
       const int32_t* bias, const float* multiplier, const Buffer& in, Buffer& out,
       const std::vector<const Backend*>& backends)
      : s_(spec), in_(in), out_(out), backends_(backends),
        codes_(weights, weights + static_cast<size_t>(spec.outputs) * (spec.channels / spec.groups) *
                                      spec.kernel_h * spec.kernel_w),
        outputs_(spec, weights, factor, bias, multiplier),
        planes_(codes_),
        finish_(outputs_.finish),
        out_h_(outputs_.height),
        out_w_(outputs_.width),
        taps_(spec.kernel_h * spec.kernel_w),
        group_in_(spec.channels / spec.groups),
        group_out_(spec.outputs / spec.groups),
        gather_(taps_ > 1 && group_in_ < kSmall) {
    const bool padded = s_.pad_top || s_.pad_left || s_.pad_bottom || s_.pad_right;
    ring_ = !gather_ && (taps_ > 1 || padded);
    pad_.resize(static_cast<size_t>(s_.channels) + 64);
    std::memset(pad_.data(), s_.zero_point, pad_.size());
    choose(kernels().front());
  }

  std::vector<std::string> kernels() const override {
    std::vector<std::string> names;
    for (const Backend* b : backends_)
      for (const DotKernel* k : b->dot)
        if (fits(*k)) names.push_back(k->name);
    // The chosen one first.
    const auto at = std::find(names.begin(), names.end(), chosen_);
    if (at != names.end()) std::rotate(names.begin(), at, at + 1);
    return names;
  }

  bool choose(const std::string& name) override {
    for (const Backend* b : backends_)
      for (const DotKernel* k : b->dot)
        if (name == k->name && fits(*k)) {
          kernel_ = k;
          pack();
          chosen_ = name;
          return true;
        }
    return false;
  }

  void run(const Context& context) override {
    const int threads = context.threads->count();
    // A few tiles cannot be shared out evenly; blocks of outputs can.
    const int blocks = static_cast<int>(ceil_div(vectors_, kVectors));
    const bool by_outputs = threads > 1 && tiles_ < 2 * threads && blocks >= 2 * threads;
    context.threads->run([&](int i) {
      Scratch& scratch = (*context.scratch)[i];
      const int first = by_outputs ? 0 : tiles_ * i / threads;
      const int last = by_outputs ? tiles_ : tiles_ * (i + 1) / threads;
      const int from = by_outputs ? blocks * i / threads : 0;
      const int to = by_outputs ? blocks * (i + 1) / threads : blocks;
      scratch.tags.assign(ring_rows_, -1);
      for (int g = 0; g < s_.groups; ++g) {
        if (g) std::fill(scratch.tags.begin(), scratch.tags.end(), -1);
        for (int tile = first; tile < last; ++tile) run_tile(scratch, tile, g, from, to);
      }
    });
  }

 private:
  bool fits(const DotKernel& k) const {
    const int planes = planes_of(k.layout);
    if (planes) {
      if (planes != planes_.count) return false;
      if (k.prepare == Prepare::kTables) return s_.largest > 63;
      // The deepest that fits, and the next: it needs fewer registers.
      const int most = lookups();
      return s_.largest <= 63 && (k.depth == 0 || k.depth == most || 2 * k.depth == most);
    }
    return depth() >= k.depth;
  }

  // Table entries, four codes each, whose sum fits a byte: the nearest that a kernel exists for.
  int lookups() const {
    return s_.largest <= 7 ? 8 : s_.largest <= 15 ? 4 : s_.largest <= 31 ? 2 : 1;
  }

  // Groups of products that 16-bit sums of adjacent pairs hold.
  int depth() const {
    if (depth_ < 0) {
      int worst = 0;
      for_pairs([&](int a, int b) {
        const int up = std::max(a, 0) + std::max(b, 0), down = std::min(a, 0) + std::min(b, 0);
        worst = std::max({worst, up, -down});
      });
      const int most = worst * std::max(1, static_cast<int>(s_.largest));
      depth_ = most ? kSumLimit / most : kSumLimit;
    }
    return depth_;
  }
  template <typename Visit>
  void for_pairs(const Visit& visit) const {
    const int inner = gather_ ? group_in_ * taps_ : group_in_, taps = gather_ ? 1 : taps_;
    for (int g = 0; g < s_.groups; ++g)
      for (int n = 0; n < group_out_; ++n)
        for (int t = 0; t < taps; ++t)
          for (int k = 0; k < inner; k += 2)
            visit(code(g, n, t, k), k + 1 < inner ? code(g, n, t, k + 1) : 0);
  }

  // Tap and channel of a gathered row are one index: tap * channels + channel.
  int8_t code(int g, int n, int t, int k) const {
    if (gather_) {
      t = k / group_in_;
      k %= group_in_;
    }
    return codes_[(static_cast<size_t>(g * group_out_ + n) * group_in_ + k) * taps_ + t];
  }

  void pack() {
    const DotKernel& k = *kernel_;
    const int planes = planes_of(k.layout);
    inner_ = gather_ ? group_in_ * taps_ : group_in_;
    inner_taps_ = gather_ ? 1 : taps_;
    groups4_ = ceil_div(inner_, 4);
    vectors_ = ceil_div(group_out_, k.lanes);
    row_bytes_ = groups4_ * prepared_bytes(k.prepare);
    group_bytes_ = static_cast<size_t>(vectors_) * inner_taps_ * groups4_ * k.vector_bytes;
    // Kernels of one layout share the packed weights.
    if (packed_layout_ != static_cast<int>(k.layout) || packed_lanes_ != k.lanes) {
      packed_.resize(group_bytes_ * s_.groups);
      for (int g = 0; g < s_.groups; ++g)
        for (int n = 0; n < group_out_; ++n)
          for (int t = 0; t < inner_taps_; ++t)
            for (int c = 0; c < inner_; ++c) put(g, n, t, c, code(g, n, t, c));
      packed_layout_ = static_cast<int>(k.layout);
      packed_lanes_ = k.lanes;
    }
    finish_.coefficient = planes ? planes_.coefficient : 1;
    offset_ = planes ? planes_.offset : 0;
    chunk_groups_ = kChunkGroups;
    if (planes) {
      // A pair of planes adds at most this to a 16-bit sum, a group.
      const int up = planes == 4 ? 8 : planes;
      const int entry = k.prepare == Prepare::kTables ? 60 : 4 * std::max(1, static_cast<int>(s_.largest));
      chunk_groups_ = std::min(chunk_groups_, kSumLimit / (up * entry));
    }
    lay_out_tiles();
  }

  void put(int g, int n, int t, int c, int8_t code) {
    const DotKernel& k = *kernel_;
    const int vector = n / k.lanes, lane = n % k.lanes, group = c / 4, j = c % 4;
    const int block = vector / kVectors;
    const int in_block = std::min(kVectors, vectors_ - block * kVectors);
    uint8_t* at = packed_.data() + g * group_bytes_ +
                  static_cast<size_t>(block) * kVectors * inner_taps_ * groups4_ * k.vector_bytes +
                  ((static_cast<size_t>(t) * groups4_ + group) * in_block + vector % kVectors) *
                      k.vector_bytes;
    switch (k.layout) {
      case Layout::kDot4:
        at[lane * 4 + j] = static_cast<uint8_t>(code);
        break;
      case Layout::kDot2:
        reinterpret_cast<int16_t*>(at)[(j / 2 * k.lanes + lane) * 2 + j % 2] = code;
        break;
      case Layout::kPlane1:
        at[lane % 16 * 2 + lane / 16] |= planes_.bit(code, 0) << j;
        break;
      case Layout::kPlane2:
      case Layout::kPlane4:
        for (int p = 0; p < planes_of(k.layout); ++p)
          at[lane * planes_of(k.layout) + p] |= planes_.bit(code, p) << j;
        break;
    }
  }

  void lay_out_tiles() {
    const int pixels = s_.batch * out_h_ * out_w_;
    ring_rows_ = 0;
    if (ring_) {
      const int wanted = std::max(1, kTilePixels / out_w_);
      tiles_per_image_ = ceil_div(out_h_, wanted);
      tile_rows_ = ceil_div(out_h_, tiles_per_image_);
      tiles_per_image_ = ceil_div(out_h_, tile_rows_);
      tiles_ = tiles_per_image_ * s_.batch;
      tile_pixels_ = tile_rows_ * out_w_;
      if (kernel_->prepare != Prepare::kRaw)
        ring_rows_ = (tile_rows_ - 1) * s_.stride_h + (s_.kernel_h - 1) * s_.dilation_h + 1;
    } else {
      int wanted = 2 * kTilePixels;
      if (kernel_->prepare != Prepare::kRaw)
        wanted = std::clamp(static_cast<int>(kTileBytes / row_bytes_), 8, wanted);
      tiles_ = ceil_div(pixels, std::min(wanted, pixels));
      tile_pixels_ = ceil_div(ceil_div(pixels, tiles_), kPixels) * kPixels;
      tiles_ = ceil_div(pixels, tile_pixels_);
    }
  }

  const uint8_t* pixel(int b, int y, int x, int g) const {
    return in_.data() + (static_cast<size_t>(b * s_.height + y) * s_.width + x) * s_.channels +
           static_cast<size_t>(g) * group_in_;
  }

  // Prepares what a tile reads and points `rows` at it; returns the first output pixel.
  int gather_tile(Scratch& w, int tile, int g, int& count) const {
    const Prepare kind = kernel_->prepare;
    const PrepareKernel prepare = backends_.front()->prepare;
    const bool want_sums = offset_ != 0;
    const bool whole_rows = s_.groups == 1 && s_.dilation_w == 1;
    const int pixels = s_.batch * out_h_ * out_w_;
    const int first = tile * tile_pixels_;
    count = std::min(tile_pixels_, pixels - first);
    w.rows.resize(std::max(w.rows.size(), static_cast<size_t>(tile_pixels_) * inner_taps_));
    w.terms.assign(tile_pixels_, 0);
    if (gather_) w.gathered.at_least(static_cast<size_t>(tile_pixels_) * (inner_ + 3) + 64);
    if (kind != Prepare::kRaw) w.prepared.at_least(tile_pixels_ * row_bytes_ + 64);
    int b = first / (out_h_ * out_w_), y = first / out_w_ % out_h_, x = first % out_w_ - 1;
    for (int p = 0; p < count; ++p) {
      if (++x == out_w_) {
        x = 0;
        if (++y == out_h_) {
          y = 0;
          ++b;
        }
      }
      const uint8_t* from;
      if (gather_) {
        uint8_t* to = w.gathered.data() + static_cast<size_t>(p) * (inner_ + 3);
        from = to;
        const int left = x * s_.stride_w - s_.pad_left;
        const bool whole = whole_rows && left >= 0 && left + s_.kernel_w <= s_.width;
        for (int i = 0; i < s_.kernel_h; ++i) {
          const int iy = y * s_.stride_h - s_.pad_top + i * s_.dilation_h;
          if (whole && iy >= 0 && iy < s_.height) {
            // Whole vectors: what is copied too much is written over, or not read.
            const uint8_t* source = pixel(b, iy, left, 0);
            const int bytes = s_.kernel_w * group_in_;
            for (int o = 0; o < bytes; o += 16) std::memcpy(to + o, source + o, 16);
            to += bytes;
            continue;
          }
          for (int j = 0; j < s_.kernel_w; ++j, to += group_in_) {
            const int ix = x * s_.stride_w - s_.pad_left + j * s_.dilation_w;
            const bool inside = iy >= 0 && iy < s_.height && ix >= 0 && ix < s_.width;
            const uint8_t* source = inside ? pixel(b, iy, ix, g) : pad_.data();
            for (int c = 0; c < group_in_; ++c) to[c] = source[c];
          }
        }
      } else {
        from = pixel(b, y * s_.stride_h, x * s_.stride_w, g);
      }
      if (kind == Prepare::kRaw) {
        w.rows[p] = from;
      } else {
        uint8_t* to = w.prepared.data() + p * row_bytes_;
        int32_t total = 0;
        prepare(kind, from, inner_, to, want_sums ? &total : nullptr);
        w.terms[p] = offset_ * total;
        w.rows[p] = to;
      }
    }
    return first;
  }

  // The same for kernels over several taps: prepared rows of the input are kept in a ring and
  // shared by the taps and by the next tiles.
  int ring_tile(Scratch& w, int tile, int g, int& count) const {
    const Prepare kind = kernel_->prepare;
    const PrepareKernel prepare = backends_.front()->prepare;
    const bool want_sums = offset_ != 0, raw = kind == Prepare::kRaw;
    const int b = tile / tiles_per_image_, y0 = tile % tiles_per_image_ * tile_rows_;
    const int y1 = std::min(out_h_, y0 + tile_rows_);
    count = (y1 - y0) * out_w_;
    w.rows.resize(std::max(w.rows.size(), static_cast<size_t>(tile_pixels_) * taps_));
    w.terms.assign(tile_pixels_, 0);
    const size_t ring_row = raw ? 0 : row_bytes_ * s_.width;
    const uint8_t* pad = pad_.data();
    int32_t pad_total = 0;
    if (!raw) {
      w.prepared.at_least(ring_row * ring_rows_ + row_bytes_ + 64);
      w.totals.resize(std::max(w.totals.size(), static_cast<size_t>(ring_rows_) * s_.width));
      uint8_t* prepared_pad = w.prepared.data() + ring_row * ring_rows_;
      prepare(kind, pad, inner_, prepared_pad, &pad_total);
      pad = prepared_pad;
      const int top = std::max(0, y0 * s_.stride_h - s_.pad_top);
      const int bottom = std::min(s_.height - 1, (y1 - 1) * s_.stride_h - s_.pad_top +
                                                     (s_.kernel_h - 1) * s_.dilation_h);
      for (int iy = top; iy <= bottom; ++iy) {
        const int slot = iy % ring_rows_, tag = b * s_.height + iy;
        if (w.tags[slot] == tag) continue;
        w.tags[slot] = tag;
        for (int ix = 0; ix < s_.width; ++ix)
          prepare(kind, pixel(b, iy, ix, g), inner_,
                  w.prepared.data() + slot * ring_row + ix * row_bytes_,
                  want_sums ? &w.totals[slot * s_.width + ix] : nullptr);
      }
    }
    const uint8_t** to = w.rows.data();
    int p = 0;
    for (int y = y0; y < y1; ++y)
      for (int x = 0; x < out_w_; ++x, ++p) {
        int32_t total = 0;
        for (int i = 0; i < s_.kernel_h; ++i) {
          const int iy = y * s_.stride_h - s_.pad_top + i * s_.dilation_h;
          const bool row_inside = iy >= 0 && iy < s_.height;
          for (int j = 0; j < s_.kernel_w; ++j) {
            const int ix = x * s_.stride_w - s_.pad_left + j * s_.dilation_w;
            if (!row_inside || ix < 0 || ix >= s_.width) {
              *to++ = pad;
              total += pad_total;
            } else if (raw) {
              *to++ = pixel(b, iy, ix, g);
            } else {
              const int slot = iy % ring_rows_;
              *to++ = w.prepared.data() + slot * ring_row + ix * row_bytes_;
              if (want_sums) total += w.totals[slot * s_.width + ix];
            }
          }
        }
        w.terms[p] = offset_ * total;
      }
    return (b * out_h_ + y0) * out_w_;
  }

  void run_tile(Scratch& w, int tile, int g, int from_block, int to_block) {
    const DotKernel& k = *kernel_;
    int count = 0;
    const int first = ring_ ? ring_tile(w, tile, g, count) : gather_tile(w, tile, g, count);
    const size_t width = static_cast<size_t>(kVectors) * k.lanes;
    w.sums.at_least((static_cast<size_t>(tile_pixels_) * width + 64) * 4);
    int32_t* sums = reinterpret_cast<int32_t*>(w.sums.data());
    Step step;
    step.row_stride = inner_taps_;
    step.sum_stride = width;
    step.depth = planes_of(k.layout) ? 0 : depth();
    std::copy(planes_.coefficients, planes_.coefficients + 4, step.coefficients);
    const size_t unit = prepared_bytes(k.prepare);
    const FinishKernel finish = backends_.front()->finish;
    const size_t size = s_.kind == LOWBIT_CODES ? 1 : 4;
    for (int block = from_block; block < to_block; ++block) {
      const int in_block = std::min(kVectors, vectors_ - block * kVectors);
      const uint8_t* weights =
          packed_.data() + g * group_bytes_ +
          static_cast<size_t>(block) * kVectors * inner_taps_ * groups4_ * k.vector_bytes;
      const size_t group_step = static_cast<size_t>(in_block) * k.vector_bytes;
      step.tap_stride = group_step * groups4_;
      step.first = true;
      const int chunk_taps = std::max(1, chunk_groups_ / groups4_);
      const int chunk_groups = std::min(groups4_, chunk_groups_);
      for (int t = 0; t < inner_taps_; t += chunk_taps)
        for (int q = 0; q < groups4_; q += chunk_groups) {
          step.taps = std::min(chunk_taps, inner_taps_ - t);
          step.groups = std::min(chunk_groups, groups4_ - q);
          step.offset = q * unit;
          step.weights = weights + t * step.tap_stride + q * group_step;
          step.pixels = count;
          step.rows = w.rows.data() + t;
          step.sums = sums;
          k.run[in_block - 1](step);
          step.first = false;
        }
      const int n = block * kVectors * k.lanes;
      const int outputs = std::min(in_block * k.lanes, group_out_ - n);
      finish(finish_, sums, width, offset_ ? w.terms.data() : nullptr, count, g * group_out_ + n,
             outputs, out_.data() + static_cast<size_t>(first) * s_.outputs * size, s_.outputs);
    }
  }

  const lowbit_conv s_;
  const Buffer& in_;
  Buffer& out_;
  const std::vector<const Backend*> backends_;
  const std::vector<int8_t> codes_;
  const Outputs outputs_;
  const Planes planes_;
  Finish finish_;
  const int out_h_, out_w_, taps_, group_in_, group_out_;
  const bool gather_;
  bool ring_;
  Buffer pad_, packed_;
  std::string chosen_;
  mutable int depth_ = -1;
  const DotKernel* kernel_ = nullptr;
  int inner_ = 0, inner_taps_ = 0, groups4_ = 0, vectors_ = 0, chunk_groups_ = 0;
  int32_t offset_ = 0;
  int packed_layout_ = -1, packed_lanes_ = 0;
  size_t row_bytes_ = 0, group_bytes_ = 0;
  int tiles_ = 0, tiles_per_image_ = 1, tile_rows_ = 1, tile_pixels_ = 1, ring_rows_ = 0;
};

}  // namespace

std::unique_ptr<Layer> make_conv(const lowbit_conv& s, const int8_t* weights,
                                 const int32_t* factor, const int32_t* bias,
                                 const float* multiplier, const Buffer& in, Buffer& out,
                                 const std::vector<const Backend*>& backends) {
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
  const bool depthwise = s.groups > 1 && s.channels == s.groups && s.outputs == s.groups;
  if (depthwise)
    return make_depthwise(s, weights, factor, bias, multiplier, in, out, backends);
  return std::make_unique<Conv>(s, weights, factor, bias, multiplier, in, out, backends);
}

}  // namespace lowbit
