// The C interface, continued: layers of floats, and what a language model has beside its layers.
#include <cmath>

#include "network.h"

using lowbit::Buffer;
using lowbit::guarded;
using lowbit::need;
using lowbit::Part;

namespace {

// A whole number within [0, most] from a float that may be anything.
int64_t whole(float number, int64_t most) {
  const float kept = std::nearbyint(number);
  if (!(kept > 0.0f)) return 0;  // not a number, too
  return kept >= static_cast<float>(most) ? most : static_cast<int64_t>(kept);
}

// The place of the first of `tokens` in a window of `length`, from the places that are left free
// after the last; without a buffer they fill the window.
int64_t first_place(const Buffer* free, int64_t tokens, int64_t length) {
  const float left = free ? *reinterpret_cast<const float*>(free->data())
                          : static_cast<float>(length - tokens);
  return length - tokens - whole(left, length - tokens);
}

const float* floats(const Buffer& buffer) { return reinterpret_cast<const float*>(buffer.data()); }
float* floats(Buffer& buffer) { return reinterpret_cast<float*>(buffer.data()); }

}  // namespace

extern "C" {

int lowbit_add_rows(lowbit_network* net, int operation, int input, int output, int64_t count,
                    int64_t width, float epsilon, const float* scale, const float* bias) {
  return guarded([&] {
    need(operation >= LOWBIT_LAYER_NORM && operation <= LOWBIT_SOFTMAX && count > 0 && width > 0,
         "no such function of rows");
    const Buffer& in = net->buffer(input, count * width * 4);
    Buffer& out = net->buffer(output, count * width * 4);
    const auto kept = [&](const float* x) {
      return x ? std::vector<float>(x, x + width) : std::vector<float>();
    };
    const std::vector<float> scales = kept(scale), biases = kept(bias);
    const auto run = net->available.front()->elementwise.rows;
    return net->add([=, &in, &out](int thread, int threads) {
      const int64_t begin = count * thread / threads, end = count * (thread + 1) / threads;
      run(operation, floats(in) + begin * width, scales.empty() ? nullptr : scales.data(),
          biases.empty() ? nullptr : biases.data(), floats(out) + begin * width, end - begin, width,
          epsilon);
    });
  });
}

int lowbit_add_pointwise(lowbit_network* net, int operation, int input, int output, int64_t count) {
  return guarded([&] {
    need(operation >= LOWBIT_GELU && operation <= LOWBIT_SWISH && count > 0, "no such function");
    const Buffer& in = net->buffer(input, count * 4);
    Buffer& out = net->buffer(output, count * 4);
    const auto run = net->available.front()->elementwise.pointwise;
    return net->add([=, &in, &out](int thread, int threads) {
      const Part part(count, thread, threads);
      run(operation, floats(in) + part.begin, floats(out) + part.begin, part.end - part.begin);
    });
  });
}

int lowbit_add_plus(lowbit_network* net, int a, int b, int output, int64_t count) {
  return guarded([&] {
    const Buffer &first = net->buffer(a, count * 4), &second = net->buffer(b, count * 4);
    Buffer& out = net->buffer(output, count * 4);
    return net->add([=, &first, &second, &out](int thread, int threads) {
      const Part part(count, thread, threads);
      const float *x = floats(first), *y = floats(second);
      float* to = floats(out);
      for (int64_t i = part.begin; i < part.end; ++i) to[i] = x[i] + y[i];
    });
  });
}

int lowbit_add_embed(lowbit_network* net, int input, int free, int output, int64_t tokens,
                     int64_t entries, int64_t length, int64_t width, const float* table,
                     const float* positions) {
  return guarded([&] {
    need(tokens > 0 && entries > 0 && width > 0 && tokens <= length,
         "an embedding needs positive sizes, and a position for each token");
    const Buffer& in = net->buffer(input, tokens * 4);
    const Buffer* left = free < 0 ? nullptr : &net->buffer(free, 4);
    Buffer& out = net->buffer(output, tokens * width * 4);
    return net->add([=, &in, &out](int thread, int) {
      if (thread) return;
      const int64_t first = first_place(left, tokens, length);
      float* to = floats(out);
      for (int64_t t = 0; t < tokens; ++t) {
        const float* row = table + whole(floats(in)[t], entries - 1) * width;
        const float* place = positions + (first + t) * width;
        for (int64_t i = 0; i < width; ++i) *to++ = row[i] + place[i];
      }
    });
  });
}

int lowbit_add_attend(lowbit_network* net, int input, int free, int output, int keys, int values,
                      int64_t tokens, int64_t heads, int64_t length, int64_t width) {
  return guarded([&] {
    need(tokens > 0 && heads > 0 && width > 0 && tokens <= length,
         "an attention needs positive sizes, and room for each token");
    const int64_t room_of_keys = (length + 7) / 8 * 8;
    const Buffer& in = net->buffer(input, tokens * 3 * heads * width * 4);
    const Buffer* left = free < 0 ? nullptr : &net->buffer(free, 4);
    Buffer& out = net->buffer(output, tokens * heads * width * 4);
    Buffer& k = net->buffer(keys, heads * room_of_keys * width * 4);
    Buffer& v = net->buffer(values, heads * length * width * 4);
    const auto run = net->available.front()->elementwise.attend;
    auto* scratch = &net->scratch;
    return net->add([=, &in, &out, &k, &v](int thread, int threads) {
      Buffer& room = (*scratch)[thread].sums;
      room.at_least(static_cast<size_t>(length) * 4 + 64);
      float* shares = floats(room);
      const int64_t first = first_place(left, tokens, length);
      for (int64_t h = heads * thread / threads; h < heads * (thread + 1) / threads; ++h) {
        float* own_keys = floats(k) + h * room_of_keys * width;
        float* own_values = floats(v) + h * length * width;
        for (int64_t t = 0; t < tokens; ++t) {
          // (head, query | key | value, width) of a token.
          const float* joint = floats(in) + (t * heads + h) * 3 * width;
          const int64_t place = first + t;
          float* key = own_keys + place / 8 * 8 * width + place % 8;
          for (int64_t i = 0; i < width; ++i) key[8 * i] = joint[width + i];
          std::copy(joint + 2 * width, joint + 3 * width, own_values + place * width);
          run(joint, own_keys, own_values, shares, floats(out) + (t * heads + h) * width, place + 1,
              width);
        }
      }
    });
  });
}

}  // extern "C"
