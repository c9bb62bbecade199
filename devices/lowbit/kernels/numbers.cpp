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
      : places_(places, places + count), codes_(codes, codes + count + 1), first_(kCells + 1),
        cells_(kCells) {
    for (int i = 0; i + 1 < count; ++i) need(places[i] < places[i + 1], "places ascend");
    if (count) {
      low_ = places[0];
      const double width = static_cast<double>(places[count - 1]) - low_;
      per_ = width > 0 ? static_cast<float>(kCells / width) : 0.0f;
    }
    for (const float place : places_) ++first_[cell(place, low_, per_) + 1];
    for (int i = 0; i < kCells; ++i) {
      most_ = std::max(most_, first_[i + 1]);
      first_[i + 1] += first_[i];
    }
    for (int i = 0; i < kCells; ++i) {
      const int at = first_[i];
      const bool any = at < first_[i + 1];
      cells_[i] = {any ? places_[at] : INFINITY, {codes_[at], codes_[any ? at + 1 : at]}};
    }
    // Read past the end of the last cell: never passed.
    places_.insert(places_.end(), most_, INFINITY);
  }

  void run(const float* from, uint8_t* to, int64_t count) const {
    if (most_ <= 1) {
      // Held here: bytes that are written could be anything of this object.
      const Cell* cells = cells_.data();
      const float low = low_, per = per_;
      for (int64_t i = 0; i < count; ++i) {
        const Cell& one = cells[cell(from[i], low, per)];
        to[i] = one.codes[from[i] >= one.place];  // no branch, which would be guessed wrong
      }
      return;
    }
    for (int64_t i = 0; i < count; ++i) {
      const int start = first_[cell(from[i], low_, per_)];
      int passed = start;
      for (int k = 0; k < most_; ++k) passed += from[i] >= places_[start + k];
      to[i] = codes_[passed];
    }
  }

 private:
  struct Cell {  // of at most one place
    float place;
    uint8_t codes[2];  // before and from it on
  };
  static constexpr int kCells = 4096;
  static int cell(float x, float low, float per) {
    const float at = std::min(std::max((x - low) * per, 0.0f), kCells - 1.0f);
    return static_cast<int>(at);
  }

  std::vector<float> places_;
  std::vector<uint8_t> codes_;
  std::vector<int> first_;
  std::vector<Cell> cells_;
  float low_ = 0, per_ = 0;
  int most_ = 0;  // places in a cell
};

// One side of a product, see lowbit.h.
class Operand {
 public:
  Operand(const int32_t* form, const int32_t* table)
      : kind_(form[0]), zero_(form[1]), low_(form[3]), high_(form[4]), bits_(form[5]),
        by_pixel(form[6]), by_channel(form[7]), scale_(std::ldexp(1.0f, form[2])),
        least_(static_cast<float>(form[3])), most_(static_cast<float>(form[4])),
        table_(table, table + form[8]) {
    need(kind_ >= LOWBIT_OF_CODES && kind_ <= LOWBIT_CURVE, "no such operand");
    need(kind_ != LOWBIT_TABLE || form[8] == 256, "a table has 256 numbers");
    need(kind_ != LOWBIT_CURVE || (bits_ > 0 && bits_ < 31 && form[8] % 4 == 0 &&
                                   (int64_t{high_} - low_) >> bits_ < form[8] / 4),
         "a curve has four numbers a cell");
    need(kind_ < LOWBIT_OF_FLOATS || low_ < high_, "the numbers lie within a range");
  }
  bool floats() const { return kind_ >= LOWBIT_OF_FLOATS; }
  int64_t operator()(const uint8_t* data, int64_t i) const {
    if (kind_ == LOWBIT_OF_CODES) return int64_t{data[i]} - zero_;
    if (kind_ == LOWBIT_TABLE) return table_[data[i]];
    const float x = reinterpret_cast<const float*>(data)[i] * scale_;
    const int32_t whole =
        x <= least_ ? low_ : x >= most_ ? high_ : static_cast<int32_t>(std::nearbyint(x));
    if (kind_ == LOWBIT_OF_FLOATS) return whole;
    const int64_t at = int64_t{whole} - low_, rest = at & ((int64_t{1} << bits_) - 1);
    const int32_t* row = table_.data() + 4 * (at >> bits_);
    int64_t y = row[3];
    for (int power = 2; power >= 0; --power) y = row[power] + ((rest * y) >> bits_);
    return y;
  }

 private:
  int kind_, zero_, low_, high_, bits_;

 public:
  const bool by_pixel, by_channel;

 private:
  float scale_, least_, most_;
  std::vector<int32_t> table_;
};

// The root of a positive number: 31 bits of it, then rounded to a float.
float root_of(uint64_t square) {
  int shift = 0;
  while (!(square >> 62)) {
    square <<= 2;
    ++shift;
  }
  uint64_t root = 0;
  for (uint64_t bit = uint64_t{1} << 31; bit; bit >>= 1)
    if ((root | bit) * (root | bit) <= square) root |= bit;
  return std::ldexp(static_cast<float>(static_cast<int32_t>(root >> 1)), 1 - shift);
}

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
      stairs.run(reinterpret_cast<const float*>(in.data()) + part.begin, out.data() + part.begin,
                 part.end - part.begin);
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

int lowbit_add_gate(lowbit_network* net, int a, int b, int output, int batch, int pixels,
                    int channels, const int32_t* form_a, const int32_t* table_a,
                    const int32_t* form_b, const int32_t* table_b, int shift, float multiplier,
                    int zero_point, int high) {
  return guarded([&] {
    need(batch > 0 && channels > 0 && pixels > 0 && shift >= 0 && shift < 62, "sizes are positive");
    need(zero_point >= 0 && high <= 255 && zero_point <= high, "codes lie within 0..255");
    const Operand left(form_a, table_a), right(form_b, table_b);
    const auto size = [&](const Operand& o) {
      return int64_t{o.by_pixel ? pixels : 1} * (o.by_channel ? channels : 1);
    };
    const int64_t size_a = size(left), size_b = size(right), rows = int64_t{batch} * pixels;
    const Buffer &in_a = net->buffer(a, batch * size_a * (left.floats() ? 4 : 1)),
                 &in_b = net->buffer(b, batch * size_b * (right.floats() ? 4 : 1));
    Buffer& out = net->buffer(output, rows * channels);
    const int64_t half = int64_t{1} << shift >> 1;
    return net->add([=, &in_a, &in_b, &out](int thread, int threads) {
      const auto place = [&](const Operand& o, int64_t size, int64_t r) {
        return r / pixels * size + (o.by_pixel ? r % pixels * (o.by_channel ? channels : 1) : 0);
      };
      for (int64_t r = rows * thread / threads; r < rows * (thread + 1) / threads; ++r) {
        const int64_t at_a = place(left, size_a, r), at_b = place(right, size_b, r);
        uint8_t* to = out.data() + r * channels;
        for (int c = 0; c < channels; ++c) {
          const int64_t product = left(in_a.data(), at_a + (left.by_channel ? c : 0)) *
                                  right(in_b.data(), at_b + (right.by_channel ? c : 0));
          const auto sum = static_cast<int32_t>((product + half) >> shift);
          to[c] = code_of(static_cast<float>(sum) * multiplier, zero_point, 0, high);
        }
      }
    });
  });
}

int lowbit_add_norm(lowbit_network* net, int input, int output, int batch, int pixels, int channels,
                    int groups, int point, int low, int limit, int shift, int64_t epsilon,
                    const float* gain, const float* bias) {
  return guarded([&] {
    need(batch > 0 && pixels > 0 && channels > 0 && groups > 0 && channels % groups == 0 &&
             low <= 0 && limit > 0 && epsilon > 0 && shift >= 0 && shift < 32,
         "sizes are positive");
    const int64_t size = int64_t{pixels} * channels, count = size / groups;
    const Buffer& in = net->buffer(input, batch * size * 4);
    Buffer& out = net->buffer(output, batch * size * 4);
    const std::vector<float> gains(gain, gain + channels), biases(bias, bias + channels);
    const float per_one = std::ldexp(1.0f, point), most = static_cast<float>(limit);
    const float least = static_cast<float>(low);
    const int64_t half = int64_t{1} << shift >> 1;
    return net->add([=, &in, &out](int thread, int threads) {
      const int each = channels / groups, parts = batch * groups;
      for (int part = parts * thread / threads; part < parts * (thread + 1) / threads; ++part) {
        const int64_t start = part / groups * size + part % groups * each;
        const float* from = reinterpret_cast<const float*>(in.data()) + start;
        float* to = reinterpret_cast<float*>(out.data()) + start;
        const auto whole = [&](int64_t p, int c) {
          const float x = from[p * channels + c] * per_one;
          return static_cast<int64_t>(std::nearbyint(x < least ? least : x > most ? most : x));
        };
        int64_t sum = 0;
        for (int64_t p = 0; p < pixels; ++p)
          for (int c = 0; c < each; ++c) sum += whole(p, c);
        const int64_t twice = 2 * sum + count, rest = twice % (2 * count);
        const int64_t mean = twice / (2 * count) - (rest < 0);
        uint64_t squares = static_cast<uint64_t>(epsilon);
        for (int64_t p = 0; p < pixels; ++p)
          for (int c = 0; c < each; ++c) {
            const int64_t centred = (whole(p, c) - mean + half) >> shift;
            squares += static_cast<uint64_t>(centred * centred);
          }
        const float root = root_of(squares);
        for (int c = 0; c < each; ++c) {
          const float factor = gains[part % groups * each + c] / root;
          for (int64_t p = 0; p < pixels; ++p)
            to[p * channels + c] = static_cast<float>(whole(p, c) - mean) * factor +
                                   biases[part % groups * each + c];
        }
      }
    });
  });
}

int lowbit_add_resample(lowbit_network* net, int input, int output, int batch, int height,
                        int width, int channels, int out_height, int out_width,
                        const int32_t* form, const int32_t* table, int lift, int row_taps,
                        const int32_t* first_row, const int32_t* row_weights, int column_taps,
                        const int32_t* first_column, const int32_t* column_weights,
                        float multiplier, int zero_point, int low, int high) {
  return guarded([&] {
    need(batch > 0 && height > 0 && width > 0 && channels > 0 && out_height > 0 && out_width > 0 &&
             lift >= 0 && lift < 32 && row_taps > 0 && column_taps > 0,
         "sizes are positive");
    need(zero_point >= 0 && low >= 0 && low <= high && high <= 255 && zero_point <= high,
         "codes lie within 0..255");
    for (int y = 0; y < out_height; ++y)
      need(first_row[y] >= 0 && first_row[y] + row_taps <= height, "neighbours lie in the image");
    for (int x = 0; x < out_width; ++x)
      need(first_column[x] >= 0 && first_column[x] + column_taps <= width,
           "neighbours lie in the image");
    const Operand image(form, table);
    const std::vector<int32_t> rows(first_row, first_row + out_height),
        columns(first_column, first_column + out_width),
        above(row_weights, row_weights + out_height * row_taps),
        beside(column_weights, column_weights + out_width * column_taps);
    const int64_t size = int64_t{height} * width * channels;
    const Buffer& in = net->buffer(input, batch * size * (image.floats() ? 4 : 1));
    Buffer& out = net->buffer(output, int64_t{batch} * out_height * out_width * channels);
    return net->add([=, &in, &out](int thread, int threads) {
      const int lines = batch * out_height;
      const int64_t half = int64_t{1} << (LOWBIT_TAP_BITS - 1);
      for (int line = lines * thread / threads; line < lines * (thread + 1) / threads; ++line) {
        const int y = line % out_height;
        uint8_t* to = out.data() + int64_t{line} * out_width * channels;
        for (int x = 0; x < out_width; ++x)
          for (int c = 0; c < channels; ++c) {
            int64_t total = 0;
            for (int i = 0; i < row_taps; ++i) {
              int64_t sum = 0;
              const int64_t at = line / out_height * size +
                                 (int64_t{rows[y] + i} * width + columns[x]) * channels + c;
              for (int j = 0; j < column_taps; ++j)
                sum += image(in.data(), at + int64_t{j} * channels) * (int64_t{1} << lift) *
                       beside[x * column_taps + j];
              total += ((sum + half) >> LOWBIT_TAP_BITS) * above[y * row_taps + i];
            }
            total = (total + half) >> LOWBIT_TAP_BITS;
            *to++ = code_of(static_cast<float>(total) * multiplier, zero_point, low, high);
          }
      }
    });
  });
}

}  // extern "C"
