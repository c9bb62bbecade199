// Which instruction sets this processor has.
#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <string>

#include "network.h"

namespace lowbit {

std::string g_limit;

namespace {

// Asked here, in code for any processor: what is compiled for an instruction set may use it in any
// of its functions, also before it could ask.
#if defined(__x86_64__) || defined(__i386__)
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("f16c");
}

bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vnni");
}
#else
bool has_avx2() { return false; }
bool has_avx512() { return false; }
#endif

bool has_dotprod() {
#if defined(__aarch64__) && defined(__linux__)
  constexpr unsigned long kDotProducts = 1ul << 20;  // HWCAP_ASIMDDP
  return (getauxval(AT_HWCAP) & kDotProducts) != 0;
#elif defined(__aarch64__) && defined(__APPLE__)
  int has = 0;
  size_t size = sizeof has;
  return sysctlbyname("hw.optional.arm.FEAT_DotProd", &has, &size, nullptr, 0) == 0 && has;
#else
  return false;
#endif
}

// Linux gives a process the tiles only on demand, and for good.
bool has_amx() {
#if defined(__x86_64__) && defined(__linux__)
  constexpr unsigned kTileAndInt8 = 1u << 24 | 1u << 25;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM
  unsigned a, b, c, d;
  static const bool has = has_avx512() && __get_cpuid_count(7, 0, &a, &b, &c, &d) &&
                          (d & kTileAndInt8) == kTileAndInt8 &&
                          syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return has;
#else
  return false;
#endif
}

}  // namespace

std::vector<const Backend*> backends() {
  std::vector<const Backend*> found;
  const auto add = [&](const Backend* b) {
    if (b) found.push_back(b);
  };
  const bool avx512 = g_limit.empty() || g_limit == "avx512";
  if (g_limit.empty() && has_amx()) add(amx_backend());
  if (avx512 && has_avx512()) add(avx512_backend());
  if ((avx512 || g_limit == "avx2") && has_avx2()) add(avx2_backend());
  if (g_limit.empty() && has_dotprod()) add(neon_dotprod_backend());
  if (g_limit.empty() || g_limit == "neon") add(neon_backend());
  add(portable_backend());
  return found;
}

}  // namespace lowbit
