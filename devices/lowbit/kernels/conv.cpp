// Convolutions and linear layers: what a tile of outputs reads, and the loops around the kernels.
#include <algorithm>
#include <cstring>

#include "weights.h"

namespace lowbit {
namespace {

constexpr int kSmall = 8;          // input channels below which taps are gathered into one row
constexpr int kTilePixels = 32;    // output pixels worked on at once, about
constexpr size_t kTileBytes = 48 << 10;  // of prepared activations, about
constexpr int kChunkGroups = 256;  // groups of a chunk: its weights stay in the nearest cache
constexpr size_t kKeepBytes = 256 << 10;  // of weights unpacked once for all tiles of a run

class Conv : public KernelLayer<DotKernel, &Backend::dot> {
 public:
  Conv(const lowbit_conv& spec, const int8_t* weights, const int32_t* factor,
       const int32_t* bias, const float* multiplier, const Buffer& in, Buffer& out,
       const std::vector<const Backend*>& backends)
      : KernelLayer(backends),
        s_(spec), in_(in), out_(out),
        outputs_(spec, weights, factor, bias, multiplier),
        finish_(outputs_.finish),
        out_h_(outputs_.height),
        out_w_(outputs_.width),
        taps_(spec.kernel_h * spec.kernel_w),
        group_in_(spec.channels / spec.groups),
        group_out_(spec.outputs / spec.groups),
        gather_(taps_ > 1 && group_in_ < kSmall),
        weights_(spec, weights, gather_) {
    const bool padded = s_.pad_top || s_.pad_left || s_.pad_bottom || s_.pad_right;
    ring_ = !gather_ && (taps_ > 1 || padded);
    pad_.resize(static_cast<size_t>(s_.channels) + 64);
    std::memset(pad_.data(), s_.zero_point, pad_.size());
    choose(kernels().front());
  }

  void run(const Context& context) override {
    const int threads = context.threads->count();
    // A few tiles cannot be shared out evenly; blocks of outputs can.
    const int blocks = static_cast<int>(ceil_div(weights_.vectors, kVectors));
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
        const bool kept = last - first > 1 && unpack_blocks(scratch, g, from, to);
        for (int tile = first; tile < last; ++tile) run_tile(scratch, tile, g, from, to, kept);
      }
    });
  }

  void settle() override { weights_.settle(); }
  size_t packed_bytes() const override { return weights_.packed_bytes(); }

 private:
  bool fits(const DotKernel& k) const override {
    const int planes = planes_of(k.layout);
    if (planes) {
      if (planes != weights_.planes.count) return false;
      if (k.prepare == Prepare::kTables) return s_.largest > 63;
      // The deepest that fits, and the next: it needs fewer registers.
      const int most = lookups();
      return s_.largest <= 63 && (k.depth == 0 || k.depth == most || 2 * k.depth == most);
    }
    return weights_.depth >= k.depth;
  }

  // Table entries, four codes each, whose sum fits a byte: the nearest that a kernel exists for.
  int lookups() const {
    return s_.largest <= 7 ? 8 : s_.largest <= 15 ? 4 : s_.largest <= 31 ? 2 : 1;
  }

  void set_up() override {
    const DotKernel& k = *kernel_;
    const int planes = planes_of(k.layout);
    weights_.pack(k);
    row_bytes_ = weights_.groups4 * prepared_bytes(k.prepare);
    finish_.coefficient = planes ? weights_.planes.coefficient : 1;
    offset_ = planes ? weights_.planes.offset : 0;
    chunk_groups_ = kChunkGroups;
    if (planes) {
      // A pair of planes adds at most this to a 16-bit sum, a group.
      const int up = planes == 4 ? 8 : planes;
      const int largest = std::max(1, static_cast<int>(s_.largest));
      const int entry = k.prepare == Prepare::kTables ? 60 : 4 * largest;
      chunk_groups_ = std::min(chunk_groups_, kSumLimit / (up * entry));
      chunk_groups_ -= chunk_groups_ % kPackedGroups;
    }
    lay_out_tiles();
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
    w.rows.resize(std::max(w.rows.size(), static_cast<size_t>(tile_pixels_) * weights_.taps));
    w.terms.assign(tile_pixels_, 0);
    if (gather_) w.gathered.at_least(static_cast<size_t>(tile_pixels_) * (weights_.inner + 3) + 64);
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
        uint8_t* to = w.gathered.data() + static_cast<size_t>(p) * (weights_.inner + 3);
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
        prepare(kind, from, weights_.inner, to, want_sums ? &total : nullptr);
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
      prepare(kind, pad, weights_.inner, prepared_pad, &pad_total);
      pad = prepared_pad;
      const int top = std::max(0, y0 * s_.stride_h - s_.pad_top);
      const int bottom = std::min(s_.height - 1, (y1 - 1) * s_.stride_h - s_.pad_top +
                                                     (s_.kernel_h - 1) * s_.dilation_h);
      for (int iy = top; iy <= bottom; ++iy) {
        const int slot = iy % ring_rows_, tag = b * s_.height + iy;
        if (w.tags[slot] == tag) continue;
        w.tags[slot] = tag;
        for (int ix = 0; ix < s_.width; ++ix)
          prepare(kind, pixel(b, iy, ix, g), weights_.inner,
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

  // Unpacks the weights of some blocks, one after the other, where they are few enough to stay near.
  bool unpack_blocks(Scratch& w, int g, int from, int to) const {
    if (!weights_.compressed() || from == to) return false;
    const size_t whole = weights_.plain_bytes(from);
    if (whole * (to - from) > kKeepBytes) return false;
    w.weights.at_least(whole * (to - from) + kUnpackSlack);
    for (int block = from; block < to; ++block)
      weights_.unpack(*backends_.front(), g, block, 0, weights_.plain_bytes(block),
                      w.weights.data() + (block - from) * whole);
    return true;
  }

  // `kept`: the weights of the blocks are unpacked already.
  void run_tile(Scratch& w, int tile, int g, int from_block, int to_block, bool kept) {
    const DotKernel& k = *kernel_;
    int count = 0;
    const int first = ring_ ? ring_tile(w, tile, g, count) : gather_tile(w, tile, g, count);
    const size_t width = static_cast<size_t>(kVectors) * k.lanes;
    w.sums.at_least((static_cast<size_t>(tile_pixels_) * width + 64) * 4);
    int32_t* sums = reinterpret_cast<int32_t*>(w.sums.data());
    Step step;
    step.row_stride = weights_.taps;
    step.sum_stride = width;
    step.depth = planes_of(k.layout) ? 0 : weights_.depth;
    std::copy_n(weights_.planes.coefficients, 4, step.coefficients);
    const size_t unit = prepared_bytes(k.prepare);
    const FinishKernel finish = backends_.front()->finish;
    // One row of a product is done on the weights as they are kept.
    const Field& field = weights_.field();
    const StepKernel packed_run =
        count == 1 && weights_.taps == 1 && !kept && field.bits <= 4 ? k.packed[field.bits] : nullptr;
    Finish fields = finish_;  // of sums of fields
    bool terms = offset_ != 0;
    if (packed_run && !planes_of(k.layout)) {
      int32_t total = 0;
      for (int c = 0; c < weights_.inner; ++c) total += w.rows[0][c];
      w.terms[0] = field.low * total;
      fields.coefficient = field.bits == 1 ? field.step : 1;
      terms = field.low != 0;
    }
    const size_t size = s_.kind == LOWBIT_CODES ? 1 : 4;
    const size_t first_bytes = weights_.plain_bytes(from_block);
    if (!kept && weights_.compressed())
      w.weights.at_least(chunk_groups_ * size_t{kVectors} * k.vector_bytes + kUnpackSlack);
    for (int block = from_block; block < to_block; ++block) {
      const int in_block = std::min(kVectors, weights_.vectors - block * kVectors);
      const uint8_t* unpacked = w.weights.data() + (block - from_block) * first_bytes;
      const bool packed = packed_run && in_block == kVectors;
      const size_t group_step = static_cast<size_t>(in_block) * k.vector_bytes;
      step.tap_stride = group_step * weights_.groups4;
      step.first = true;
      const int chunk_taps = std::max(1, chunk_groups_ / weights_.groups4);
      const int chunk_groups = std::min(weights_.groups4, chunk_groups_);
      for (int t = 0; t < weights_.taps; t += chunk_taps)
        for (int q = 0; q < weights_.groups4; q += chunk_groups) {
          step.taps = std::min(chunk_taps, weights_.taps - t);
          step.groups = std::min(chunk_groups, weights_.groups4 - q);
          step.offset = q * unit;
          const size_t at = t * step.tap_stride + q * group_step;
          const size_t bytes = (step.taps - 1) * step.tap_stride + step.groups * group_step;
          step.weights = packed ? weights_.kept(g, block, at)
                         : kept ? unpacked + at
                                : weights_.unpack(*backends_.front(), g, block, at, at + bytes,
                                                  w.weights.data());
          step.pixels = count;
          step.rows = w.rows.data() + t;
          step.sums = sums;
          if (packed) step.groups = ceil_div(step.groups, kPackedGroups) * kPackedGroups;
          (packed ? packed_run : k.run[in_block - 1])(step);
          step.first = false;
        }
      const int n = block * kVectors * k.lanes;
      const int outputs = std::min(in_block * k.lanes, group_out_ - n);
      // Only whole codes have sums of fields, and only whole blocks of them.
      const bool plain = !packed && !planes_of(k.layout);
      finish(plain ? finish_ : fields, sums, width, terms && !plain ? w.terms.data() : nullptr, count,
             g * group_out_ + n, outputs, out_.data() + static_cast<size_t>(first) * s_.outputs * size, s_.outputs);
    }
  }

  const lowbit_conv s_;
  const Buffer& in_;
  Buffer& out_;
  const Outputs outputs_;
  Finish finish_;
  const int out_h_, out_w_, taps_, group_in_, group_out_;
  const bool gather_;
  bool ring_;
  ConvWeights weights_;
  Buffer pad_;
  int chunk_groups_ = 0;
  int32_t offset_ = 0;
  size_t row_bytes_ = 0;
  int tiles_ = 0, tiles_per_image_ = 1, tile_rows_ = 1, tile_pixels_ = 1, ring_rows_ = 0;
};

}  // namespace

std::unique_ptr<Layer> make_dense(const lowbit_conv& s, const int8_t* weights,
                                  const int32_t* factor, const int32_t* bias,
                                  const float* multiplier, const Buffer& in, Buffer& out,
                                  const std::vector<const Backend*>& backends) {
  return std::make_unique<Conv>(s, weights, factor, bias, multiplier, in, out, backends);
}

}  // namespace lowbit
