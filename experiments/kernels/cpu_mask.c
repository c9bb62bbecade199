// Hides AVX-512, VNNI and AMX from this process (Linux, x86-64, a processor that can fault on
// CPUID): arch_prctl makes CPUID trap, and the handler answers with those bits cleared.
#define _GNU_SOURCE
#include <cpuid.h>
#include <signal.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define ARCH_SET_CPUID 0x1012

static void on_fault(int signal_number, siginfo_t* info, void* context) {
  (void)signal_number;
  (void)info;
  greg_t* reg = ((ucontext_t*)context)->uc_mcontext.gregs;
  const uint8_t* at = (const uint8_t*)reg[REG_RIP];
  if (at[0] != 0x0f || at[1] != 0xa2) {  // not CPUID: a real fault
    signal(SIGSEGV, SIG_DFL);
    return;
  }
  const uint32_t leaf = (uint32_t)reg[REG_RAX], sub = (uint32_t)reg[REG_RCX];
  uint32_t a, b, c, d;
  syscall(SYS_arch_prctl, ARCH_SET_CPUID, 1);
  __cpuid_count(leaf, sub, a, b, c, d);
  syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0);
  if (leaf == 7 && sub == 0) {
    // AVX512 F DQ IFMA PF ER CD BW VL; VBMI VBMI2 VNNI BITALG VPOPCNTDQ; 4VNNIW 4FMAPS
    // VP2INTERSECT AMX-BF16 FP16 AMX-TILE AMX-INT8
    b &= ~(1u << 16 | 1u << 17 | 1u << 21 | 1u << 26 | 1u << 27 | 1u << 28 | 1u << 30 | 1u << 31);
    c &= ~(1u << 1 | 1u << 6 | 1u << 11 | 1u << 12 | 1u << 14);
    d &= ~(1u << 2 | 1u << 3 | 1u << 8 | 1u << 22 | 1u << 23 | 1u << 24 | 1u << 25);
  }
  if (leaf == 7 && sub == 1) {  // AVX-VNNI AVX512-BF16; AVX-VNNI-INT8 AVX-VNNI-INT16
    a &= ~(1u << 4 | 1u << 5);
    d &= ~(1u << 4 | 1u << 10);
  }
  reg[REG_RAX] = a;
  reg[REG_RBX] = b;
  reg[REG_RCX] = c;
  reg[REG_RDX] = d;
  reg[REG_RIP] += 2;
}

int mask_on(void) {
  struct sigaction action = {0};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  if (sigaction(SIGSEGV, &action, 0)) return -1;
  return (int)syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0);
}
