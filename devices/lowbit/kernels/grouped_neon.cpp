// Grouped linear layers for Arm with NEON (AArch64).
#include "internal.h"

#if defined(__aarch64__) && defined(__ARM_NEON)
#include <arm_neon.h>

#include <cstring>

namespace lowbit {
namespace {

#include "grouped_neon.inc"

}  // namespace

void grouped_neon(const GroupedStep& s) {
  block(s);
}

}  // namespace lowbit

#endif
