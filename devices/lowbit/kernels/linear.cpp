// Linear layers of weights alone, see grouped.h: quantising the rows, and sharing out the blocks.
#include <algorithm>
#include <stdexcept>

#include "layers.h"

namespace lowbit {
namespace {

constexpr int kMostRows = 128;  // of a pass over the weights: codes and sums stay in the nearest caches

class Linear : public Layer {
 public:
  Linear(const lowbit_linear& s, const uint8_t* weights, const uint16_t* scales,
         const uint16_t* mins, const float* bias, const float* factor, const Buffer& in, Buffer& out,
         const Backend& backend)
      : s_(s), in_(in), out_(out), backend_(backend), weights_(weights), scales_(scales), mins_(mins),
        bias_(bias), factor_(factor),
        padded_(ceil_div(s.channels, 2 * kStepChannels) * 2 * kStepChannels),
        group_(s.group ? s.group : padded_),
        groups_(padded_ / group_),
        blocks_(ceil_div(s.outputs, kBlockOutputs)),
        block_bytes_(size_t{kBlockOutputs} * padded_ * s.bits * s.planes / 8),
        // Rows a power of two apart would share a few sets of the cache.
        row_bytes_(s.rows > 1 ? padded_ + 64 : padded_),
        codes_(static_cast<size_t>(ceil_div(s.rows, kTileRows) * kTileRows) * row_bytes_),
        totals_(static_cast<size_t>(s.rows) * groups_),
        zeros_(totals_.size()),
        row_scales_(s.rows) {}

  size_t weight_bytes() const { return block_bytes_ * blocks_; }

  void run(const Context& context) override {
    const int threads = std::min(context.threads->count(), blocks_);
    if (s_.rows < 2 * context.threads->count())
      quantise(0, s_.rows);
    else
      context.threads->run([&](int i) {
        const int count = context.threads->count();
        quantise(s_.rows * i / count, s_.rows * (i + 1) / count);
      });
    context.threads->run([&](int i) {
      if (i >= threads) return;
      Scratch& scratch = (*context.scratch)[i];
      // Blocks at once share what is read of the activations.
      const int end = blocks_ * (i + 1) / threads;
      const int most = s_.rows >= kManyRows ? backend_.grouped_blocks : 1;
      for (int row = 0; row < s_.rows; row += kMostRows)
        for (int block = blocks_ * i / threads, count = 0; block < end; block += count) {
          count = std::min(most, end - block);
          run_blocks(scratch, block, count, row, std::min(kMostRows, s_.rows - row));
        }
    });
  }

  std::vector<std::string> kernels() const override {
    return {std::string("grouped_") + backend_.name};
  }
  bool choose(const std::string& name) override { return name == kernels().front(); }

  size_t packed_bytes() const override {
    const size_t numbers = static_cast<size_t>(groups_) * blocks_ * kBlockOutputs;
    return weight_bytes() + 2 * numbers * (s_.planes + (mins_ ? 1 : 0));
  }

 private:
  void quantise(int from, int to) {
    const float* x = reinterpret_cast<const float*>(in_.data());
    for (int row = from; row < to; ++row) {
      float* totals = totals_.data() + static_cast<size_t>(row) * groups_;
      row_scales_[row] = backend_.quantise_row(
          x + static_cast<size_t>(row) * s_.channels, factor_, s_.channels, padded_, group_,
          reinterpret_cast<int8_t*>(codes_.data()) + static_cast<size_t>(row) * row_bytes_, totals);
      float* zeros = zeros_.data() + static_cast<size_t>(row) * groups_;
      for (int g = 0; g < groups_; ++g) zeros[g] = totals[g] * s_.zero;
    }
  }

  void run_blocks(Scratch& w, int block, int blocks, int row, int rows) {
    const int width = blocks * kBlockOutputs;
    w.sums.at_least(static_cast<size_t>(rows) * width * 4 + 64);
    w.weights.at_least(static_cast<size_t>(group_) * width + 2 * kUnpackSlack);
    float* sums = reinterpret_cast<float*>(w.sums.data());
    const size_t numbers = static_cast<size_t>(groups_) * kBlockOutputs, first = size_t(row) * groups_;
    const GroupedStep step = {rows,
                              blocks,
                              reinterpret_cast<const int8_t*>(codes_.data()) + row * row_bytes_,
                              row_bytes_,
                              weights_ + block * block_bytes_,
                              block_bytes_,
                              s_.bits,
                              s_.planes,
                              groups_,
                              group_ / kStepChannels,
                              scales_ + block * numbers * s_.planes,
                              mins_ ? mins_ + block * numbers : nullptr,
                              numbers,
                              totals_.data() + first,
                              zeros_.data() + first,
                              sums,
                              static_cast<size_t>(width),
                              w.weights.data()};
    const int begin = block * kBlockOutputs;
    const int count = std::min(width, static_cast<int>(s_.outputs) - begin);
    float* out = reinterpret_cast<float*>(out_.data()) + static_cast<size_t>(row) * s_.outputs + begin;
    // The sums are long in coming: by then there is where to put them.
    for (int r = 0; rows > 1 && r < rows; ++r)
      for (int n = 0; n < count; n += kBlockOutputs)
        __builtin_prefetch(out + static_cast<size_t>(r) * s_.outputs + n, 0, 2);
    backend_.grouped(step);
    backend_.finish_rows(sums, width, row_scales_.data() + row, bias_ ? bias_ + begin : nullptr, rows,
                         count, out, s_.outputs);
  }

  const lowbit_linear s_;
  const Buffer& in_;
  Buffer& out_;
  const Backend& backend_;
  const uint8_t* const weights_;
  const uint16_t *const scales_, *const mins_;
  const float *const bias_, *const factor_;
  const int padded_, group_, groups_, blocks_;
  const size_t block_bytes_, row_bytes_;
  Buffer codes_;
  std::vector<float> totals_, zeros_, row_scales_;
};

}  // namespace

std::unique_ptr<Layer> make_linear(const lowbit_linear& s, const uint8_t* weights,
                                   const uint16_t* scales, const uint16_t* mins, const float* bias,
                                   const float* factor, const Buffer& in, Buffer& out,
                                   const Backend& backend) {
  const auto check = [](bool good, const char* reason) {
    if (!good) throw std::invalid_argument(reason);
  };
  check(s.rows > 0 && s.channels > 0 && s.outputs > 0, "a linear layer needs positive sizes");
  check(s.bits >= 1 && s.bits <= 4 && s.planes >= 1 && s.planes <= 4,
        "weights of a linear layer have 1 to 4 bits or planes");
  check(s.planes == 1 || s.bits == 1, "planes have one bit each");
  check(s.channels <= (1 << 16), "more than 65536 channels do not fit sums of 32 bits");
  check(s.group == 0 || ((s.group == 32 || s.group == 64 || s.group == 128) && s.channels % s.group == 0),
        "a group has 32, 64 or 128 channels and divides them, or is 0 for a scale for each output");
  check(weights && scales, "a linear layer needs weights and scales");
  check(in.size() >= size_t(s.rows) * s.channels * 4, "the input buffer is too small");
  check(out.size() >= size_t(s.rows) * s.outputs * 4, "the output buffer is too small");
  return std::make_unique<Linear>(s, weights, scales, mins, bias, factor, in, out, backend);
}

}  // namespace lowbit
