// A pool of workers that share one parallel section at a time with the caller.
#pragma once
#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace lowbit {

class Threads {
 public:
  explicit Threads(int count);
  ~Threads();
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

  int count() const { return static_cast<int>(workers_.size()) + 1; }
  // Calls work(index) for every index below count(), index 0 on the caller; waits for all.
  template <typename Work>
  void run(const Work& work) {
    if (workers_.empty()) {
      work(0);
      return;
    }
    start([](const void* w, int index) { (*static_cast<const Work*>(w))(index); }, &work);
  }

 private:
  void start(void (*call)(const void*, int), const void* work);
  void loop(int index);

  std::vector<std::thread> workers_;
  void (*call_)(const void*, int) = nullptr;
  const void* work_ = nullptr;
  std::atomic<unsigned> round_{0};
  std::atomic<int> busy_{0};
  std::atomic<int> asleep_{0};
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::condition_variable wake_;
};

}  // namespace lowbit
