// Depthwise convolutions. Rows of the input are interleaved in pairs, once, in a ring that the rows
// of the output share; a kernel then runs along a whole row.
#include <algorithm>
#include <climits>
#include <cstdlib>
#include <cstring>

#include "layers.h"

namespace lowbit {
namespace {

class Depthwise : public KernelLayer<DepthwiseKernel, &Backend::depthwise> {
 public:
  Depthwise(const lowbit_conv& spec, const int8_t* weights, const int32_t* factor,
            const int32_t* bias, const float* multiplier, const Buffer& in, Buffer& out,
            const std::vector<const Backend*>& backends)
      : KernelLayer(backends), s_(spec), in_(in), out_(out),
        codes_(weights, weights + static_cast<size_t>(spec.outputs) * spec.kernel_h * spec.kernel_w),
        outputs_(spec, weights, factor, bias, multiplier),
        pairs_(ceil_div(spec.kernel_h, 2)),
        columns_((outputs_.width - 1) * spec.stride_w + (spec.kernel_w - 1) * spec.dilation_w + 1),
        ring_rows_((spec.kernel_h - 1) * spec.dilation_h + 1),
        depth_(depth()) {
    pad_.resize(static_cast<size_t>(s_.channels) + 64);
    std::memset(pad_.data(), s_.zero_point, pad_.size());
    choose(kernels().front());
  }

  void run(const Context& context) override {
    const int threads = context.threads->count(), total = s_.batch * outputs_.height;
    context.threads->run([&](int i) {
      rows((*context.scratch)[i], total * i / threads, total * (i + 1) / threads);
    });
  }

 private:
  bool fits(const DepthwiseKernel& k) const override { return depth_ >= k.depth; }

  // Pairs of products that 16-bit sums hold: all, where the sums of whole outputs fit.
  int depth() const {
    constexpr int kLimit = 32767;
    const int largest = std::max(1, static_cast<int>(s_.largest));
    int whole = 0, pair = 0;
    for (int c = 0; c < s_.channels; ++c) {
      int up = 0, down = 0;
      for (int i = 0; i < s_.kernel_h; i += 2)
        for (int j = 0; j < s_.kernel_w; ++j) {
          const int a = weight(c, i, j), b = weight(c, i + 1, j);
          const int pair_up = std::max(a, 0) + std::max(b, 0);
          const int pair_down = -(std::min(a, 0) + std::min(b, 0));
          up += pair_up;
          down += pair_down;
          pair = std::max({pair, pair_up, pair_down});
        }
      whole = std::max({whole, up, down});
    }
    return whole <= kLimit / largest ? INT_MAX : kLimit / (pair * largest);
  }

  int weight(int c, int i, int j) const {
    const bool inside = c < s_.channels && i < s_.kernel_h;
    return inside ? codes_[(static_cast<size_t>(c) * s_.kernel_h + i) * s_.kernel_w + j] : 0;
  }

  void set_up() override {
    const DepthwiseKernel& k = *kernel_;
    blocks_ = ceil_div(s_.channels, k.block);
    column_bytes_ = static_cast<size_t>(blocks_) * k.block * 2 * k.bytes;
    packed_.resize(column_bytes_ * pairs_ * s_.kernel_w);
    size_t at = 0;
    for (int block = 0; block < blocks_; ++block)
      for (int i = 0; i < pairs_; ++i)
        for (int j = 0; j < s_.kernel_w; ++j)
          for (int c = 0; c < k.block; ++c)
            for (int half = 0; half < 2; ++half, ++at) {
              const int w = weight(block * k.block + c, 2 * i + half, j);
              if (k.bytes == 1)
                packed_.data()[at] = static_cast<uint8_t>(w);
              else
                reinterpret_cast<int16_t*>(packed_.data())[at] = static_cast<int16_t>(w);
            }
  }

  // Rows y and y + dilation of image b, with the padding left and right.
  void interleave(int b, int y, uint8_t* to) const {
    const size_t row = static_cast<size_t>(s_.width) * s_.channels;
    const uint8_t* image = in_.data() + b * s_.height * row;
    const auto of = [&](int i) { return i >= 0 && i < s_.height ? image + i * row : nullptr; };
    const uint8_t *above = of(y), *below = of(y + s_.dilation_h);
    const int left = std::min(static_cast<int>(s_.pad_left), columns_);
    const int inside = std::clamp(columns_ - left, 0, static_cast<int>(s_.width));
    const auto put = [&](const uint8_t* a, const uint8_t* c, int count) {
      const size_t step = s_.channels;
      kernel_->interleave(a ? a : pad_.data(), a ? step : 0, c ? c : pad_.data(), c ? step : 0,
                          count, blocks_, to);
      to += count * column_bytes_;
    };
    put(nullptr, nullptr, left);
    put(above, below, inside);
    put(nullptr, nullptr, columns_ - left - inside);
  }

  void rows(Scratch& w, int first, int last) const {
    const size_t row_bytes = columns_ * column_bytes_;
    const size_t sum_stride = static_cast<size_t>(blocks_) * kernel_->block;
    w.prepared.at_least(row_bytes * ring_rows_ + 64);
    w.sums.at_least((outputs_.width * sum_stride + 64) * 4);
    w.rows.resize(std::max(w.rows.size(), static_cast<size_t>(pairs_)));
    w.tags.assign(ring_rows_, INT_MIN);
    int32_t* sums = reinterpret_cast<int32_t*>(w.sums.data());
    const size_t size = s_.kind == LOWBIT_CODES ? 1 : 4;
    const Strip strip = {w.rows.data(), pairs_, s_.kernel_w, s_.dilation_w * column_bytes_,
                         s_.stride_w * column_bytes_, outputs_.width, blocks_, packed_.data(),
                         sums, sum_stride, depth_};
    for (int row = first; row < last; ++row) {
      const int b = row / outputs_.height, y = row % outputs_.height;
      for (int i = 0; i < pairs_; ++i) {
        const int top = y * s_.stride_h + 2 * i * s_.dilation_h;  // in the padded image
        const int slot = top % ring_rows_, tag = b * (s_.height + s_.pad_top + s_.pad_bottom) + top;
        uint8_t* at = w.prepared.data() + slot * row_bytes;
        if (w.tags[slot] != tag) interleave(b, top - s_.pad_top, at);
        w.tags[slot] = tag;
        w.rows[i] = at;
      }
      kernel_->run(strip);
      backends_.front()->finish(outputs_.finish, sums, sum_stride, nullptr, outputs_.width, 0,
                                s_.channels,
                                out_.data() + static_cast<size_t>(row) * outputs_.width * s_.outputs * size,
                                s_.outputs);
    }
  }

  const lowbit_conv s_;
  const Buffer& in_;
  Buffer& out_;
  const std::vector<int8_t> codes_;
  const Outputs outputs_;
  const int pairs_, columns_, ring_rows_, depth_;
  Buffer pad_, packed_;
  int blocks_ = 0;
  size_t column_bytes_ = 0;
};

}  // namespace

std::unique_ptr<Layer> make_depthwise(const lowbit_conv& s, const int8_t* weights,
                                      const int32_t* factor, const int32_t* bias,
                                      const float* multiplier, const Buffer& in, Buffer& out,
                                      const std::vector<const Backend*>& backends) {
  return std::make_unique<Depthwise>(s, weights, factor, bias, multiplier, in, out, backends);
}

}  // namespace lowbit
