// A small program for the sanitizers: random layers through every kernel, against plain loops.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "lowbit.h"

namespace {

std::mt19937 g_random(1);

int pick(int low, int high) { return low + static_cast<int>(g_random() % (high - low + 1)); }

void require(bool good, const std::string& what) {
  if (good) return;
  std::fprintf(stderr, "selftest: %s (%s)\n", what.c_str(), lowbit_error());
  std::exit(1);
}

int one(int round) {
  lowbit_conv s{};
  const bool depthwise = round % 4 == 1;
  s.groups = depthwise ? pick(2, 70) : round % 4 == 2 ? 2 : 1;
  s.channels = depthwise ? s.groups : s.groups * pick(1, 37);
  s.outputs = depthwise ? s.groups : s.groups * pick(1, 67);
  s.kernel_h = pick(1, 5);
  s.kernel_w = pick(1, 3);
  s.stride_h = pick(1, 2);
  s.stride_w = pick(1, 2);
  s.pad_top = pick(0, 2);
  s.pad_left = pick(0, 2);
  s.pad_bottom = pick(0, 2);
  s.pad_right = pick(0, 2);
  s.dilation_h = s.dilation_w = 1;
  s.batch = pick(1, 2);
  s.height = pick(5, 9);
  s.width = pick(3, 9);
  s.largest = (1 << pick(1, 8)) - 1;
  s.zero_point = pick(0, s.largest);
  s.kind = LOWBIT_SUMS;
  s.out_high = 255;
  s.scale = 1.0f;
  const int bits = pick(1, 8), inner = s.channels / s.groups, taps = s.kernel_h * s.kernel_w;
  const int out_h = (s.height + s.pad_top + s.pad_bottom - s.kernel_h) / s.stride_h + 1;
  const int out_w = (s.width + s.pad_left + s.pad_right - s.kernel_w) / s.stride_w + 1;
  std::vector<int8_t> weights(static_cast<size_t>(s.outputs) * inner * taps);
  for (int8_t& w : weights)
    w = static_cast<int8_t>(bits == 1 ? 2 * pick(0, 1) - 1
                                      : pick(-(1 << (bits - 1)), (1 << (bits - 1)) - 1));
  std::vector<int32_t> factor(s.outputs), bias(s.outputs);
  for (int32_t& f : factor) f = pick(1, 20);
  for (int32_t& b : bias) b = pick(-999, 999);
  const std::vector<float> multiplier(s.outputs, 0.01f);

  lowbit_network* net = lowbit_create(pick(1, 3));
  require(net != nullptr, "create");
  const size_t in_size = static_cast<size_t>(s.batch) * s.height * s.width * s.channels;
  const size_t out_size = static_cast<size_t>(s.batch) * out_h * out_w * s.outputs;
  s.input = lowbit_buffer(net, static_cast<int64_t>(in_size));
  s.output = lowbit_buffer(net, static_cast<int64_t>(out_size * 4));
  uint8_t* x = static_cast<uint8_t*>(lowbit_data(net, s.input));
  for (size_t i = 0; i < in_size; ++i) x[i] = static_cast<uint8_t>(pick(0, s.largest));
  const int layer = lowbit_add_conv(net, &s, weights.data(), factor.data(), bias.data(),
                                    multiplier.data());
  require(layer == 0, "add_conv");

  std::vector<int32_t> expected;
  for (int b = 0; b < s.batch; ++b)
    for (int y = 0; y < out_h; ++y)
      for (int c = 0; c < out_w; ++c)
        for (int n = 0; n < s.outputs; ++n) {
          int32_t total = 0;
          const int group = n / (s.outputs / s.groups);
          for (int k = 0; k < inner; ++k)
            for (int t = 0; t < taps; ++t) {
              const int iy = y * s.stride_h - s.pad_top + t / s.kernel_w;
              const int ix = c * s.stride_w - s.pad_left + t % s.kernel_w;
              if (iy < 0 || iy >= s.height || ix < 0 || ix >= s.width) continue;
              const size_t at =
                  (static_cast<size_t>(b * s.height + iy) * s.width + ix) * s.channels +
                  static_cast<size_t>(group) * inner + k;
              total += (x[at] - s.zero_point) *
                       weights[(static_cast<size_t>(n) * inner + k) * taps + t];
            }
          expected.push_back(total * factor[n] + bias[n]);
        }

  int tried = 0;
  std::istringstream names(lowbit_kernels(net, layer));
  for (std::string name; std::getline(names, name, ','); ++tried) {
    require(lowbit_choose(net, layer, name.c_str()) == 0, "choose " + name);
    require(lowbit_run(net, 0, 1) == 0, "run " + name);
    const int32_t* got = static_cast<const int32_t*>(lowbit_data(net, s.output));
    for (size_t i = 0; i < out_size; ++i)
      require(got[i] == expected[i], name + " differs in round " + std::to_string(round));
  }
  lowbit_destroy(net);
  return tried;
}

// A linear layer of weights alone: every backend against plain loops, by a float's error.
void linear(int round) {
  lowbit_linear s{};
  s.planes = round % 3 ? 1 : pick(2, 4);
  s.bits = s.planes > 1 ? 1 : pick(1, 4);
  const int groups[] = {0, 32, 64, 128};
  s.group = groups[round % 4];
  s.channels = s.group ? s.group * pick(1, 3) : pick(1, 90);
  s.outputs = pick(1, 90);
  s.rows = pick(1, 40);
  s.zero = 1.5f;
  const int padded = (s.channels + 31) / 32 * 32, group = s.group ? s.group : padded;
  const int many = padded / group, blocks = (s.outputs + 15) / 16;
  const size_t numbers = static_cast<size_t>(blocks) * many * 16;
  // Exactly the bytes there are, so that the sanitizers see what is read beyond.
  std::vector<uint8_t> weights(static_cast<size_t>(blocks) * 16 * padded * s.bits * s.planes / 8);
  for (uint8_t& byte : weights) byte = static_cast<uint8_t>(pick(0, 255));
  std::vector<uint16_t> scales(numbers * s.planes), mins(numbers);
  for (uint16_t& scale : scales) scale = static_cast<uint16_t>(0x2c00 + pick(0, 1023));  // 1/16..1/8
  for (uint16_t& min : mins) min = static_cast<uint16_t>(0xac00 + pick(0, 1023));
  std::vector<float> bias(s.outputs), factor(s.channels);
  for (float& b : bias) b = static_cast<float>(pick(-9, 9));
  for (float& f : factor) f = static_cast<float>(pick(1, 4)) / 2;
  const auto half = [](uint16_t h) {
    return (h & 0x8000 ? -1.0 : 1.0) * (1 + (h & 1023) / 1024.0) / 16;
  };
  const auto field = [&](int n, int k, int plane) {
    const int g = k / group, step = k % group / 16, j = k % 16 / 4 * 2 + n % 16 / 8;
    const int lane = n % 8 * 4 + k % 4;
    const size_t steps = ((static_cast<size_t>(n / 16) * many + g) * s.planes + plane) * (group / 16);
    const uint8_t* at = weights.data() + (steps + step) * 32 * s.bits;
    if (s.bits == 3) return (at[j / 4 * 32 + lane] >> (j % 4 * 2) & 3) | (at[64 + lane] >> j & 1) << 2;
    const int fields = 8 / s.bits;
    return at[j / fields * 32 + lane] >> (j % fields * s.bits) & ((1 << s.bits) - 1);
  };

  std::vector<float> x(static_cast<size_t>(s.rows) * s.channels);
  for (float& v : x) v = static_cast<float>(pick(-1000, 1000)) / 512;
  std::vector<double> expected;
  for (int r = 0; r < s.rows; ++r) {
    float most = 0;
    std::vector<float> scaled(s.channels);
    for (int k = 0; k < s.channels; ++k) {
      scaled[k] = x[static_cast<size_t>(r) * s.channels + k] * factor[k];
      most = std::max(most, std::fabs(scaled[k]));
    }
    for (int n = 0; n < s.outputs; ++n) {
      double total = 0;
      for (int k = 0; k < s.channels; ++k) {
        const size_t at = (static_cast<size_t>(n / 16) * many + k / group);
        const double a = std::nearbyint(most > 0 ? scaled[k] * (127.0f / most) : 0.0f);
        double w = half(mins[at * 16 + n % 16]);
        for (int p = 0; p < s.planes; ++p)
          w += half(scales[(at * s.planes + p) * 16 + n % 16]) * (field(n, k, p) - s.zero);
        total += w * a;
      }
      expected.push_back(total * (most / 127.0) + bias[n]);
    }
  }
  lowbit_network* net = lowbit_create(pick(1, 3));
  require(net != nullptr, "create");
  s.input = lowbit_buffer(net, static_cast<int64_t>(x.size() * 4));
  s.output = lowbit_buffer(net, static_cast<int64_t>(expected.size() * 4));
  std::copy(x.begin(), x.end(), static_cast<float*>(lowbit_data(net, s.input)));
  require(lowbit_add_linear(net, &s, weights.data(), scales.data(), mins.data(), bias.data(),
                            factor.data()) == 0, "add_linear");
  require(lowbit_run(net, 0, 1) == 0, "run linear");
  const float* got = static_cast<const float*>(lowbit_data(net, s.output));
  for (size_t i = 0; i < expected.size(); ++i)
    require(std::fabs(got[i] - expected[i]) < 1e-3 * (1 + std::fabs(expected[i])),
            "linear layer of " + std::to_string(s.bits) + " bits in round " + std::to_string(round));
  lowbit_destroy(net);
}

// Layers that make codes of numbers: what they read lies in buffers of exactly its size.
void numbers(int round) {
  const int batch = pick(1, 2), height = pick(2, 5), width = pick(2, 6), channels = pick(1, 9);
  const int pixels = height * width, count = batch * pixels * channels;
  const int zero = pick(0, 255);
  lowbit_network* net = lowbit_create(pick(1, 3));
  require(net != nullptr, "create");
  const int in = lowbit_buffer(net, int64_t{count} * 4), out = lowbit_buffer(net, count);
  float* x = static_cast<float*>(lowbit_data(net, in));
  for (int i = 0; i < count; ++i) x[i] = static_cast<float>(pick(-4000, 4000)) / 256;
  std::vector<float> places(static_cast<size_t>(pick(0, 300)));
  for (float& place : places) place = static_cast<float>(pick(-2000, 2000)) / 256;
  std::sort(places.begin(), places.end());
  places.erase(std::unique(places.begin(), places.end()), places.end());
  std::vector<uint8_t> codes(places.size() + 1);
  for (uint8_t& code : codes) code = static_cast<uint8_t>(pick(0, 255));
  require(lowbit_add_steps(net, in, out, count, static_cast<int>(places.size()), places.data(),
                           codes.data()) == 0, "add_steps");
  require(lowbit_run(net, 0, 1) == 0, "run steps");
  const uint8_t* got = static_cast<const uint8_t*>(lowbit_data(net, out));
  for (int i = 0; i < count; ++i)
    require(got[i] == codes[static_cast<size_t>(
                          std::upper_bound(places.begin(), places.end(), x[i]) - places.begin())],
            "stairs in round " + std::to_string(round));

  const std::vector<float> each(static_cast<size_t>(channels), 0.5f);
  require(lowbit_add_slopes(net, in, out, batch * pixels, channels, each.data(), 0.25f, zero, 255) ==
              1, "add_slopes");
  const int norm = lowbit_buffer(net, int64_t{count} * 4);
  require(lowbit_add_norm(net, in, norm, batch, pixels, channels, 1, 20, 0, 1 << 29, 4, 1, each.data(),
                          each.data()) == 2, "add_norm");
  // A straight line as a curve of one cell, and the floats themselves.
  const int32_t curve[] = {LOWBIT_CURVE, 0, 4, -(1 << 10), (1 << 10) - 1, 11, 1, 1, 4};
  const int32_t plain[] = {LOWBIT_OF_FLOATS, 0, 4, -(1 << 10), (1 << 10) - 1, 0, 1, 1, 0};
  const int32_t line[] = {-1024, 2048, 0, 0};
  require(lowbit_add_gate(net, in, in, out, batch, pixels, channels, curve, line, plain, line, 3,
                          0.01f, zero, 255) == 3, "add_gate");
  const std::vector<int32_t> rows(static_cast<size_t>(height), 0),
      columns(static_cast<size_t>(width), width - 2),
      weights(static_cast<size_t>(2 * (height + width)), 1 << 19);
  require(lowbit_add_resample(net, in, out, batch, height, width, channels, height, width, plain,
                              line, 0, 2, rows.data(), weights.data(), 2, columns.data(),
                              weights.data(), 0.1f, zero, 0, 255) == 4, "add_resample");
  require(lowbit_run(net, 1, 5) == 0, "run numbers");
  lowbit_destroy(net);
}

}  // namespace

int main(int count, char** arguments) {
  const int rounds = count > 1 ? std::atoi(arguments[1]) : 60;
  int kernels = 0;
  for (int round = 0; round < rounds; ++round) kernels += one(round);
  for (int round = 0; round < rounds; ++round) numbers(round);
  for (const char* instructions : {"", "portable", "avx2", "avx512", "neon"}) {
    require(lowbit_restrict(instructions) == 0, "restrict");
    for (int round = 0; round < rounds; ++round) linear(round);
  }
  lowbit_restrict("");
  std::printf("%d layers, %d kernel runs, exact (%s)\n", rounds, kernels, lowbit_features());
  return kernels > rounds ? 0 : 1;
}
