// Grouped linear layers for Arm processors with products of bytes that are summed by four.
#include "internal.h"

#if defined(__aarch64__) && defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>

#include <cstring>

namespace lowbit {
namespace {

#include "grouped_neon.inc"

}  // namespace

void grouped_neon_dotprod(const GroupedStep& s) {
  block(s);
}

}  // namespace lowbit

#endif
