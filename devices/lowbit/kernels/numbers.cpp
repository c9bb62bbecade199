// From numbers to codes by integers: staircases, slopes, sums with a factor of the place.
#include <algorithm>
#include <cmath>
#include <vector>

#include "network.h"

using lowbit::Buffer;
using lowbit::guarded;
using lowbit::need;
using lowbit::Part;

namespace {

// Rounds half to even, as kernels of layers do.
inline uint8_t code_of(float value, int zero_point, int low, int high) {
  const float least = static_cast<float>(low - zero_point);
  const float most = static_cast<float>(high - zero_point);
  const float cut = value < least ? least : value > most ? most : value;
  return static_cast<uint8_t>(static_cast<int>(std::nearbyint(cut)) + zero_point);
}

// A staircase whose places are sorted into cells of equal width. All places in cells below that
// of a number are passed by it, whatever the width rounds to, so only those in its own are compared.
class Staircase {
 public:
  Staircase(const float* places, const uint8_t* codes, int count)
      : places_(places, places + count), codes_(codes, codes + count + 1), first_(kCells + 1) {
    for (int i = 0; i + 1 < count; ++i) need(places[i] < places[i + 1], "places ascend");
    if (count) {
      low_ = places[0];
      const double width = static_cast<double>(places[count - 1]) - low_;
      per_ = width > 0 ? static_cast<float>(kCells / width) : 0.0f;
    }
    for (const float place : places_) ++first_[cell(place) + 1];
    for (int i = 0; i < kCells; ++i) {
      most_ = std::max(most_, first_[i + 1]);
      first_[i + 1] += first_[i];
    }
    // Read past the end of the last cell: never passed.
    places_.insert(places_.end(), most_, INFINITY);
  }

  uint8_t operator()(float x) const {
    const int start = first_[cell(x)];
    int passed = start;
    for (int i = 0; i < most_; ++i) passed += x >= places_[start + i];
    return codes_[passed];
  }

 private:
  static constexpr int kCells = 4096;
  int cell(float x) const {
    const float at = (x - low_) * per_;
    return at > 0 ? at < kCells - 1 ? static_cast<int>(at) : kCells - 1 : 0;
  }

  std::vector<float> places_;
  std::vector<uint8_t> codes_;
  std::vector<int> first_;
  float low_ = 0, per_ = 0;
  int most_ = 0;  // places in a cell
};

}  // namespace

extern "C" {

int lowbit_add_steps(lowbit_network* net, int input, int output, int64_t count, int places,
                     const float* place, const uint8_t* codes) {
  return guarded([&] {
    need(count >= 0 && places >= 0 && places < (1 << 16), "sizes are positive");
    const Buffer& in = net->buffer(input, count * 4);
    Buffer& out = net->buffer(output, count);
    const Staircase stairs(place, codes, places);
    return net->add([=, &in, &out](int thread, int threads) {
      const Part part(count, thread, threads);
      const float* from = reinterpret_cast<const float*>(in.data());
      uint8_t* to = out.data();
      for (int64_t i = part.begin; i < part.end; ++i) to[i] = stairs(from[i]);
    });
  });
}

int lowbit_add_slopes(lowbit_network* net, int input, int output, int64_t rows, int channels,
                      const float* slopes, float scale, int zero_point, int high) {
  return guarded([&] {
    need(rows >= 0 && channels > 0 && scale > 0, "sizes and scale are positive");
    need(zero_point >= 0 && high <= 255 && zero_point <= high, "codes lie within 0..255");
    const Buffer& in = net->buffer(input, rows * channels * 4);
    Buffer& out = net->buffer(output, rows * channels);
    const std::vector<float> copy(slopes, slopes + channels);
    return net->add([=, &in, &out](int thread, int threads) {
      for (int64_t r = rows * thread / threads; r < rows * (thread + 1) / threads; ++r) {
        const float* from = reinterpret_cast<const float*>(in.data()) + r * channels;
        uint8_t* to = out.data() + r * channels;
        for (int c = 0; c < channels; ++c) {
          const float value = from[c] < 0 ? copy[c] * from[c] : from[c];
          to[c] = code_of(value / scale, zero_point, 0, high);
        }
      }
    });
  });
}

int lowbit_add_shares(lowbit_network* net, int input, int output, int batch, int pixels,
                      int channels, const float* multiplier, int zero_point, int high) {
  return guarded([&] {
    need(batch > 0 && channels > 0 && pixels > 0, "sizes are positive");
    need(zero_point >= 0 && high <= 255 && zero_point <= high, "codes lie within 0..255");
    const int64_t rows = int64_t{batch} * pixels;
    const Buffer& in = net->buffer(input, rows * channels * 4);
    Buffer& out = net->buffer(output, rows * channels);
    const std::vector<float> copy(multiplier, multiplier + pixels);
    return net->add([=, &in, &out](int thread, int threads) {
      for (int64_t r = rows * thread / threads; r < rows * (thread + 1) / threads; ++r) {
        const int32_t* from = reinterpret_cast<const int32_t*>(in.data()) + r * channels;
        uint8_t* to = out.data() + r * channels;
        const float m = copy[static_cast<size_t>(r % pixels)];
        for (int c = 0; c < channels; ++c)
          to[c] = code_of(static_cast<float>(from[c]) * m, zero_point, 0, high);
      }
    });
  });
}

}  // extern "C"
