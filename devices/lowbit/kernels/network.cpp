// The C interface: buffers, the other layers, running and timing.
#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include "network.h"

namespace lowbit {

void Buffer::resize(size_t bytes) {
  constexpr size_t kLine = 64, kSlack = 128;
  storage_ = std::vector<uint8_t>(bytes + kLine + kSlack);  // gives back what it had
  const auto address = reinterpret_cast<uintptr_t>(storage_.data());
  start_ = storage_.data() + (kLine - address % kLine) % kLine;
  size_ = bytes;
}

thread_local std::string g_error;

namespace {

thread_local std::string g_text;

double now_ns() {
  return static_cast<double>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                 std::chrono::steady_clock::now().time_since_epoch())
                                 .count());
}

}  // namespace
}  // namespace lowbit

using lowbit::Backend;
using lowbit::Buffer;
using lowbit::guarded;
using lowbit::need;
using lowbit::Part;

namespace {

void need_codes(int zero_point, int low, int high) {
  need(zero_point >= 0 && zero_point <= 255 && low >= 0 && low <= high && high <= 255,
       "codes lie within 0..255");
}

lowbit::Layer& layer_of(lowbit_network* net, int id) {
  need(id >= 0 && id < static_cast<int>(net->layers.size()), "no such layer");
  return *net->layers[id];
}

}  // namespace

extern "C" {

int lowbit_abi(void) { return LOWBIT_ABI; }
const char* lowbit_error(void) { return lowbit::g_error.c_str(); }

const char* lowbit_features(void) {
  lowbit::g_text.clear();
  for (const Backend* b : lowbit::backends())
    lowbit::g_text += (lowbit::g_text.empty() ? "" : ",") + std::string(b->name);
  return lowbit::g_text.c_str();
}

int lowbit_restrict(const char* features) {
  return guarded([&] {
    const std::string name = features ? features : "";
    need(name.empty() || name == "portable" || name == "avx2" || name == "avx512" || name == "neon",
         "restrict to portable, avx2, avx512, neon or nothing");
    lowbit::g_limit = name;
    return 0;
  });
}

int lowbit_rows(int operation, const float* x, const float* scale, const float* bias, float* out,
                int64_t count, int64_t width, float epsilon) {
  return guarded([&] {
    need(operation >= LOWBIT_LAYER_NORM && operation <= LOWBIT_SOFTMAX && count >= 0 && width > 0,
         "no such function of rows");
    lowbit::backends().front()->elementwise.rows(operation, x, scale, bias, out, count, width, epsilon);
    return 0;
  });
}

int lowbit_pointwise(int operation, const float* x, float* out, int64_t count) {
  return guarded([&] {
    need(operation >= LOWBIT_GELU && operation <= LOWBIT_SWISH && count >= 0, "no such function");
    lowbit::backends().front()->elementwise.pointwise(operation, x, out, count);
    return 0;
  });
}

lowbit_network* lowbit_create(int threads) {
  try {
    need(threads >= 1 && threads <= 1024, "threads must be within 1..1024");
    return new lowbit_network(threads);
  } catch (const std::exception& error) {
    lowbit::g_error = error.what();
    return nullptr;
  }
}

void lowbit_destroy(lowbit_network* net) { delete net; }

int lowbit_buffer(lowbit_network* net, int64_t bytes) {
  return guarded([&] {
    need(bytes >= 0 && bytes < (int64_t{1} << 40), "a buffer needs a size");
    net->buffers.push_back(std::make_unique<Buffer>(static_cast<size_t>(bytes)));
    return static_cast<int>(net->buffers.size()) - 1;
  });
}

void* lowbit_data(lowbit_network* net, int buffer) {
  if (buffer < 0 || buffer >= static_cast<int>(net->buffers.size())) return nullptr;
  return net->buffers[buffer]->data();
}

int lowbit_add_conv(lowbit_network* net, const lowbit_conv* spec, const int8_t* weights,
                    const int32_t* factor, const int32_t* bias, const float* multiplier) {
  return guarded([&] {
    net->layers.push_back(lowbit::make_conv(*spec, weights, factor, bias, multiplier,
                                            net->buffer(spec->input, 0),
                                            net->buffer(spec->output, 0), net->available));
    return static_cast<int>(net->layers.size()) - 1;
  });
}

int lowbit_add_linear(lowbit_network* net, const lowbit_linear* spec, const uint8_t* weights,
                      const uint16_t* scales, const uint16_t* mins, const float* bias,
                      const float* factor) {
  return guarded([&] {
    net->layers.push_back(lowbit::make_linear(*spec, weights, scales, mins, bias, factor,
                                              net->buffer(spec->input, 0),
                                              net->buffer(spec->output, 0), *net->available.front()));
    return static_cast<int>(net->layers.size()) - 1;
  });
}

int lowbit_add_quantise(lowbit_network* net, int input, int output, int batch, int channels,
                        int pixels, float scale, int zero_point, int high) {
  return guarded([&] {
    need(batch > 0 && channels > 0 && pixels > 0 && scale > 0, "sizes and scale are positive");
    need_codes(zero_point, 0, high);
    const int64_t size = int64_t{channels} * pixels;
    const Buffer& in = net->buffer(input, size * batch * 4);
    Buffer& out = net->buffer(output, size * batch);
    const auto run = net->available.front()->elementwise.quantise;
    return net->add([=, &in, &out](int thread, int threads) {
      for (int b = batch * thread / threads; b < batch * (thread + 1) / threads; ++b)
        run(reinterpret_cast<const float*>(in.data()) + b * size, out.data() + b * size, channels,
            pixels, scale, zero_point, high);
    });
  });
}

int lowbit_add_dequantise(lowbit_network* net, int input, int output, int batch, int channels,
                          int pixels, float scale, int zero_point) {
  return guarded([&] {
    need(batch > 0 && channels > 0 && pixels > 0, "sizes are positive");
    const int64_t size = int64_t{channels} * pixels;
    const Buffer& in = net->buffer(input, size * batch);
    Buffer& out = net->buffer(output, size * batch * 4);
    return net->add([=, &in, &out](int thread, int) {
      if (thread) return;
      float* to = reinterpret_cast<float*>(out.data());
      for (int b = 0; b < batch; ++b)
        for (int c = 0; c < channels; ++c)
          for (int p = 0; p < pixels; ++p)
            *to++ = static_cast<float>(in.data()[b * size + int64_t{p} * channels + c] -
                                       zero_point) * scale;
    });
  });
}

int lowbit_add_sum(lowbit_network* net, int a, int b, int output, int64_t count, float ma, float mb,
                   float constant, int low, int high) {
  return guarded([&] {
    need_codes(0, low, high);
    const Buffer &first = net->buffer(a, count), &second = net->buffer(b, count);
    Buffer& out = net->buffer(output, count);
    const auto run = net->available.front()->elementwise.sum;
    return net->add([=, &first, &second, &out](int thread, int threads) {
      const Part part(count, thread, threads);
      run(first.data() + part.begin, second.data() + part.begin, out.data() + part.begin,
          part.end - part.begin, ma, mb, constant, low, high);
    });
  });
}

int lowbit_add_product(lowbit_network* net, int a, int b, int output, int batch, int pixels,
                       int channels, int za, int zb, float m, int zero_point, int low, int high) {
  return guarded([&] {
    need(batch > 0 && channels > 0 && pixels > 0, "sizes are positive");
    need_codes(zero_point, low, high);
    const int64_t rows = int64_t{batch} * pixels;
    const Buffer &first = net->buffer(a, rows * channels),
                 &second = net->buffer(b, int64_t{batch} * channels);
    Buffer& out = net->buffer(output, rows * channels);
    const auto run = net->available.front()->elementwise.product;
    return net->add([=, &first, &second, &out](int thread, int threads) {
      for (int64_t r = rows * thread / threads; r < rows * (thread + 1) / threads; ++r)
        run(first.data() + r * channels, second.data() + r / pixels * channels,
            out.data() + r * channels, channels, za, zb, m, zero_point, low, high);
    });
  });
}

int lowbit_add_mean(lowbit_network* net, int input, int output, int batch, int pixels,
                    int channels, int za, float m, int zero_point, int low, int high) {
  return guarded([&] {
    need(batch > 0 && channels > 0 && pixels > 0 && pixels < (1 << 22), "sizes are positive");
    need_codes(zero_point, low, high);
    const Buffer& in = net->buffer(input, int64_t{batch} * pixels * channels);
    Buffer& out = net->buffer(output, int64_t{batch} * channels);
    const auto& run = net->available.front()->elementwise;
    auto* scratch = &net->scratch;
    return net->add([=, &in, &out, &run](int thread, int threads) {
      Buffer& sums = (*scratch)[thread].sums;
      sums.at_least(size_t(channels) * 4 + 64);
      int32_t* total = reinterpret_cast<int32_t*>(sums.data());
      for (int b = batch * thread / threads; b < batch * (thread + 1) / threads; ++b) {
        run.column_sums(in.data() + int64_t{b} * pixels * channels, pixels, channels, channels,
                        total);
        run.finish_mean(total, out.data() + int64_t{b} * channels, channels, pixels * za, m,
                        zero_point, low, high);
      }
    });
  });
}

int lowbit_add_map(lowbit_network* net, int input, int output, int64_t count,
                   const uint8_t* table) {
  return guarded([&] {
    const Buffer& in = net->buffer(input, count);
    Buffer& out = net->buffer(output, count);
    const std::vector<uint8_t> copy(table, table + 256);
    return net->add([=, &in, &out](int thread, int threads) {
      const Part part(count, thread, threads);
      const uint8_t *from = in.data(), *map = copy.data();
      uint8_t* to = out.data();
      for (int64_t i = part.begin; i < part.end; ++i) to[i] = map[from[i]];
    });
  });
}

int lowbit_add_rescale(lowbit_network* net, int input, int output, int64_t count, int za,
                       float scale, float out_scale, int zero_point, int low, int high) {
  return guarded([&] {
    need_codes(zero_point, low, high);
    const Buffer& in = net->buffer(input, count);
    Buffer& out = net->buffer(output, count);
    const auto run = net->available.front()->elementwise.rescale;
    return net->add([=, &in, &out](int thread, int threads) {
      const Part part(count, thread, threads);
      run(in.data() + part.begin, out.data() + part.begin, part.end - part.begin, za, scale,
          out_scale, zero_point, low, high);
    });
  });
}

int lowbit_add_max_pool(lowbit_network* net, int input, int output, int batch, int height,
                        int width, int channels, int kernel_h, int kernel_w, int stride_h,
                        int stride_w, int pad_top, int pad_left, int pad_bottom, int pad_right) {
  return guarded([&] {
    need(batch > 0 && height > 0 && width > 0 && channels > 0 && kernel_h > 0 && kernel_w > 0 &&
             stride_h > 0 && stride_w > 0 && pad_top >= 0 && pad_left >= 0 && pad_bottom >= 0 &&
             pad_right >= 0,
         "sizes are positive");
    need(height + pad_top + pad_bottom >= kernel_h && width + pad_left + pad_right >= kernel_w,
         "the window is larger than the padded input");
    const int out_h = (height + pad_top + pad_bottom - kernel_h) / stride_h + 1;
    const int out_w = (width + pad_left + pad_right - kernel_w) / stride_w + 1;
    const Buffer& in = net->buffer(input, int64_t{batch} * height * width * channels);
    Buffer& out = net->buffer(output, int64_t{batch} * out_h * out_w * channels);
    const auto run = net->available.front()->elementwise.maximum;
    const int rows = batch * out_h;
    return net->add([=, &in, &out](int thread, int threads) {
      for (int r = rows * thread / threads; r < rows * (thread + 1) / threads; ++r)
        for (int x = 0; x < out_w; ++x) {
          uint8_t* to = out.data() + (int64_t{r} * out_w + x) * channels;
          std::memset(to, 0, static_cast<size_t>(channels));
          for (int i = 0; i < kernel_h; ++i)
            for (int j = 0; j < kernel_w; ++j) {
              const int iy = r % out_h * stride_h - pad_top + i, ix = x * stride_w - pad_left + j;
              if (iy < 0 || iy >= height || ix < 0 || ix >= width) continue;
              run(in.data() + ((int64_t{r / out_h} * height + iy) * width + ix) * channels, to,
                  channels);
            }
        }
    });
  });
}

int lowbit_add_planar(lowbit_network* net, int input, int output, int batch, int pixels,
                      int channels) {
  return guarded([&] {
    const int64_t size = int64_t{pixels} * channels;
    const Buffer& in = net->buffer(input, size * batch);
    Buffer& out = net->buffer(output, size * batch);
    return net->add([=, &in, &out](int thread, int threads) {
      for (int b = batch * thread / threads; b < batch * (thread + 1) / threads; ++b)
        for (int p = 0; p < pixels; ++p)
          for (int c = 0; c < channels; ++c)
            out.data()[b * size + int64_t{c} * pixels + p] =
                in.data()[b * size + int64_t{p} * channels + c];
    });
  });
}

int lowbit_add_copy(lowbit_network* net, int input, int output, int64_t pixels, int channels,
                    int in_stride, int from, int out_stride, int to) {
  return guarded([&] {
    need(pixels > 0 && channels > 0 && from >= 0 && to >= 0 && from + channels <= in_stride &&
             to + channels <= out_stride,
         "the channels lie outside the pixel");
    const Buffer& in = net->buffer(input, pixels * in_stride);
    Buffer& out = net->buffer(output, pixels * out_stride);
    return net->add([=, &in, &out](int thread, int threads) {
      for (int64_t p = pixels * thread / threads; p < pixels * (thread + 1) / threads; ++p)
        std::memcpy(out.data() + p * out_stride + to, in.data() + p * in_stride + from,
                    static_cast<size_t>(channels));
    });
  });
}

int lowbit_run(lowbit_network* net, int first, int last) {
  return guarded([&] {
    need(first >= 0 && first <= last && last <= static_cast<int>(net->layers.size()),
         "no such layers");
    const lowbit::Context context = net->context();
    for (int i = first; i < last; ++i) net->layers[static_cast<size_t>(i)]->run(context);
    return 0;
  });
}

int lowbit_profile(lowbit_network* net, int rounds, double* ns) {
  return guarded([&] {
    const lowbit::Context context = net->context();
    for (int r = 0; r < rounds; ++r)
      for (size_t i = 0; i < net->layers.size(); ++i) {
        const double start = lowbit::now_ns();
        net->layers[i]->run(context);
        ns[i] += lowbit::now_ns() - start;
      }
    return 0;
  });
}

int lowbit_layers(lowbit_network* net) { return static_cast<int>(net->layers.size()); }

const char* lowbit_kernels(lowbit_network* net, int layer) {
  lowbit::g_text.clear();
  const int result = guarded([&] {
    for (const std::string& name : layer_of(net, layer).kernels())
      lowbit::g_text += (lowbit::g_text.empty() ? "" : ",") + name;
    return 0;
  });
  return result < 0 ? nullptr : lowbit::g_text.c_str();
}

int lowbit_choose(lowbit_network* net, int layer, const char* kernel) {
  return guarded([&] {
    need(layer_of(net, layer).choose(kernel), "this layer has no such kernel");
    return 0;
  });
}

int lowbit_compare(lowbit_network* net, int layer, const char* kernels, int rounds, double* ns) {
  return guarded([&] {
    lowbit::Layer& one = layer_of(net, layer);
    const lowbit::Context context = net->context();
    std::vector<std::string> names;
    std::istringstream list(kernels);
    for (std::string name; std::getline(list, name, ',');) names.push_back(name);
    for (int r = 0; r < rounds; ++r)
      for (const std::string& name : names) {
        need(one.choose(name), "this layer has no such kernel");
        one.run(context);  // brings this kernel's weights near after the others ran
        const double start = lowbit::now_ns();
        one.run(context);
        *ns++ = lowbit::now_ns() - start;
      }
    return 0;
  });
}

int lowbit_settle(lowbit_network* net, int layer) {
  return guarded([&] {
    layer_of(net, layer).settle();
    return 0;
  });
}

void lowbit_trim(void) {
#if defined(__GLIBC__)
  malloc_trim(0);
#endif
}

int64_t lowbit_packed_bytes(lowbit_network* net, int layer) {
  int64_t bytes = -1;
  const int status = guarded([&] {
    bytes = static_cast<int64_t>(layer_of(net, layer).packed_bytes());
    return 0;
  });
  return status < 0 ? -1 : bytes;
}

double lowbit_time(lowbit_network* net, int layer, int rounds) {
  double result = -1;
  const int status = guarded([&] {
    lowbit::Layer& one = layer_of(net, layer);
    const lowbit::Context context = net->context();
    one.run(context);
    std::vector<double> times;
    for (int r = 0; r < rounds; ++r) {
      const double start = lowbit::now_ns();
      one.run(context);
      times.push_back(lowbit::now_ns() - start);
    }
    std::sort(times.begin(), times.end());
    result = times[times.size() / 2];
    return 0;
  });
  return status < 0 ? -1 : result;
}

}  // extern "C"
