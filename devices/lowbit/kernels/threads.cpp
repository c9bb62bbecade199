#include "threads.h"

#include <chrono>

namespace lowbit {
namespace {

void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Layers follow each other within microseconds; a sleeping worker would take longer to wake.
constexpr auto kSpin = std::chrono::microseconds(100);

}  // namespace

Threads::Threads(int count) {
  for (int i = 1; i < count; ++i) workers_.emplace_back([this, i] { loop(i); });
}

Threads::~Threads() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
    round_.fetch_add(1);
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void Threads::start(void (*call)(const void*, int), const void* work) {
  call_ = call;
  work_ = work;
  busy_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
  round_.fetch_add(1);
  if (asleep_.load() > 0) {
    // Taking the lock orders this after a worker's last look at `round_`.
    { std::lock_guard<std::mutex> lock(mutex_); }
    wake_.notify_all();
  }
  call(work, 0);
  int spins = 0;
  while (busy_.load(std::memory_order_acquire) > 0) {
    pause();
    // With more threads than processors the worker waited for may need this one.
    if (++spins % 4096 == 0) std::this_thread::yield();
  }
}

void Threads::loop(int index) {
  unsigned seen = 0;
  for (;;) {
    auto end = std::chrono::steady_clock::now() + kSpin;
    int spins = 0;
    while (round_.load(std::memory_order_acquire) == seen) {
      pause();
      if (++spins % 64 || std::chrono::steady_clock::now() < end) continue;
      std::unique_lock<std::mutex> lock(mutex_);
      asleep_.fetch_add(1);
      wake_.wait(lock, [&] { return round_.load() != seen; });
      asleep_.fetch_sub(1);
    }
    ++seen;
    if (stop_) return;
    call_(work_, index);
    busy_.fetch_sub(1, std::memory_order_release);
  }
}

}  // namespace lowbit
