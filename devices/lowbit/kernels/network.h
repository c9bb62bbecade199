// A network, and what the files of its C interface share.
#pragma once
#include <algorithm>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "layers.h"

namespace lowbit {

extern thread_local std::string g_error;  // of lowbit_error

extern std::string g_limit;  // set by lowbit_restrict before networks are made

// Those of this processor that may be used, best first.
std::vector<const Backend*> backends();

// A layer that is one function of (thread, threads).
template <typename Work>
class Plain : public Layer {
 public:
  explicit Plain(Work work) : work_(work) {}
  void run(const Context& context) override {
    const int threads = context.threads->count();
    context.threads->run([&](int i) { work_(i, threads); });
  }

 private:
  Work work_;
};

template <typename Work>
int guarded(const Work& work) {
  try {
    return work();
  } catch (const std::exception& error) {
    g_error = error.what();
    return -1;
  }
}

inline void need(bool good, const char* reason) {
  if (!good) throw std::invalid_argument(reason);
}

// The part of [0, count) that belongs to a thread, in whole cache lines.
struct Part {
  int64_t begin, end;
  Part(int64_t count, int thread, int threads) {
    const int64_t lines = (count + 63) / 64;
    begin = std::min(count, lines * thread / threads * 64);
    end = std::min(count, lines * (thread + 1) / threads * 64);
  }
};

}  // namespace lowbit

struct lowbit_network {
  explicit lowbit_network(int threads)
      : pool(threads), scratch(static_cast<size_t>(threads)), available(lowbit::backends()) {}

  lowbit::Buffer& buffer(int id, int64_t bytes) {
    if (id < 0 || id >= static_cast<int>(buffers.size()))
      throw std::invalid_argument("no buffer " + std::to_string(id));
    if (bytes < 0 || static_cast<int64_t>(buffers[id]->size()) < bytes)
      throw std::invalid_argument("buffer " + std::to_string(id) + " has " +
                                  std::to_string(buffers[id]->size()) + " bytes, not " +
                                  std::to_string(bytes));
    return *buffers[id];
  }
  template <typename Work>
  int add(Work work) {
    layers.push_back(std::make_unique<lowbit::Plain<Work>>(work));
    return static_cast<int>(layers.size()) - 1;
  }
  lowbit::Context context() { return {&pool, &scratch}; }

  lowbit::Threads pool;
  std::vector<lowbit::Scratch> scratch;
  std::vector<const lowbit::Backend*> available;
  std::vector<std::unique_ptr<lowbit::Buffer>> buffers;
  std::vector<std::unique_ptr<lowbit::Layer>> layers;
};
