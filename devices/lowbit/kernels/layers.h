// The layers of a network.
#pragma once
#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "internal.h"
#include "lowbit.h"
#include "threads.h"

namespace lowbit {

static inline int ceil_div(int a, int b) { return (a + b - 1) / b; }

// Memory of a whole number of cache lines, with room behind it for a vector that is read past
// the end.
class Buffer {
 public:
  explicit Buffer(size_t bytes = 0) { resize(bytes); }
  void resize(size_t bytes);
  void at_least(size_t bytes) {
    if (bytes > size_) resize(bytes);
  }
  uint8_t* data() { return start_; }
  const uint8_t* data() const { return start_; }
  size_t size() const { return size_; }

 private:
  std::vector<uint8_t> storage_;
  uint8_t* start_ = nullptr;
  size_t size_ = 0;
};

// One thread's working memory, shared by the layers of a network.
struct Scratch {
  Buffer gathered, prepared, sums, weights;
  std::vector<const uint8_t*> rows;
  std::vector<int32_t> totals, terms;
  std::vector<int> tags;
};

struct Context {
  Threads* threads;
  std::vector<Scratch>* scratch;
};

class Layer {
 public:
  virtual ~Layer() = default;
  virtual void run(const Context&) = 0;
  virtual std::vector<std::string> kernels() const { return {}; }
  virtual bool choose(const std::string&) { return false; }
  // After the last choice: forget what other kernels would need.
  virtual void settle() {}
  // Bytes that the weights take, as they are kept.
  virtual size_t packed_bytes() const { return 0; }
};

// A layer that one of several kernels does: those of `Kernels`, of each backend, that fit.
template <typename Kernel, std::vector<const Kernel*> Backend::* Kernels>
class KernelLayer : public Layer {
 public:
  // The chosen one first.
  std::vector<std::string> kernels() const override {
    std::vector<std::string> names;
    for (const Backend* b : backends_)
      for (const Kernel* k : b->*Kernels)
        if (fits(*k)) names.push_back(k->name);
    const auto chosen = std::find(names.begin(), names.end(), kernel_ ? kernel_->name : "");
    if (chosen != names.end()) std::rotate(names.begin(), chosen, chosen + 1);
    return names;
  }

  bool choose(const std::string& name) override {
    for (const Backend* b : backends_)
      for (const Kernel* k : b->*Kernels)
        if (name == k->name && fits(*k)) {
          kernel_ = k;
          set_up();
          return true;
        }
    return false;
  }

 protected:
  explicit KernelLayer(const std::vector<const Backend*>& backends) : backends_(backends) {}
  virtual bool fits(const Kernel&) const = 0;
  virtual void set_up() = 0;  // for the chosen kernel: pack the weights, plan the work

  const std::vector<const Backend*> backends_;
  const Kernel* kernel_ = nullptr;
};

// What follows the sums of a convolution, with the input's zero point in the bias.
class Outputs {
 public:
  Outputs(const lowbit_conv&, const int8_t* codes, const int32_t* factor, const int32_t* bias,
          const float* multiplier);
  Outputs(const Outputs&) = delete;  // `finish` points into it
  Outputs& operator=(const Outputs&) = delete;
  const int height, width;
  Finish finish;

 private:
  std::vector<int32_t> factor_, bias_;
  std::vector<float> multiplier_;
};

// Throws std::invalid_argument with the reason.
std::unique_ptr<Layer> make_conv(const lowbit_conv&, const int8_t* weights,
                                 const int32_t* factor, const int32_t* bias,
                                 const float* multiplier, const Buffer& in, Buffer& out,
                                 const std::vector<const Backend*>& backends);

std::unique_ptr<Layer> make_linear(const lowbit_linear&, const uint8_t* weights,
                                   const uint16_t* scales, const uint16_t* mins, const float* bias,
                                   const float* factor, const Buffer& in, Buffer& out,
                                   const Backend&);

// Of a checked convolution.
std::unique_ptr<Layer> make_dense(const lowbit_conv&, const int8_t* weights,
                                  const int32_t* factor, const int32_t* bias,
                                  const float* multiplier, const Buffer& in, Buffer& out,
                                  const std::vector<const Backend*>& backends);

// Of a checked convolution with one input channel for each output.
std::unique_ptr<Layer> make_depthwise(const lowbit_conv&, const int8_t* weights,
                                      const int32_t* factor, const int32_t* bias,
                                      const float* multiplier, const Buffer& in, Buffer& out,
                                      const std::vector<const Backend*>& backends);

}  // namespace lowbit
