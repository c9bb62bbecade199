/* The example on a RISC-V core without an operating system, text by semihosting. */
#include "port.h"

extern uint32_t _data_load, _data_start, _data_end, _bss_start, _bss_end;
int main(void);

static int semihosting(int operation, const void *argument) {
  register int a0 __asm__("a0") = operation;
  register const void *a1 __asm__("a1") = argument;
  __asm__ volatile(
      ".balign 16\n.option push\n.option norvc\n"
      "slli x0, x0, 0x1f\nebreak\nsrai x0, x0, 7\n.option pop"
      : "+r"(a0)
      : "r"(a1)
      : "memory");
  return a0;
}

void port_write(const char *text) { semihosting(4, text); }

void port_exit(int status) {
  const uint32_t reason[2] = {0x20026, (uint32_t)status};
  semihosting(0x20, reason);
  for (;;) {
  }
}

uint32_t port_instructions(void) {
  uint32_t count;
  __asm__ volatile("csrr %0, minstret" : "=r"(count));
  return count;
}

void start_c(void);
void start_c(void) {
  uint32_t *from = &_data_load, *to = &_data_start;
  while (to < &_data_end) *to++ = *from++;
  for (to = &_bss_start; to < &_bss_end;) *to++ = 0;
  port_exit(main());
}

__attribute__((naked, section(".vectors"), used)) void _start(void);
__attribute__((naked, section(".vectors"), used)) void _start(void) {
  __asm__ volatile(
      ".option push\n.option norelax\nla gp, __global_pointer$\n.option pop\n"
      "la sp, _stack_top\nj start_c");
}
