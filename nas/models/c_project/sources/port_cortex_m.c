/* The example on a Cortex-M without an operating system, text by semihosting. */
#include "port.h"

extern uint32_t _stack_top, _data_load, _data_start, _data_end, _bss_start, _bss_end;
int main(void);

static int semihosting(int operation, const void *argument) {
  register int r0 __asm__("r0") = operation;
  register const void *r1 __asm__("r1") = argument;
  __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
  return r0;
}

void port_write(const char *text) { semihosting(4, text); }

void port_exit(int status) {
  const uint32_t reason[2] = {0x20026, (uint32_t)status};
  semihosting(0x20, reason);
  for (;;) {
  }
}

#define SYST_CSR (*(volatile uint32_t *)0xe000e010)
#define SYST_RVR (*(volatile uint32_t *)0xe000e014)
#define SYST_CVR (*(volatile uint32_t *)0xe000e018)

/* An emulator that advances one nanosecond an instruction; its clock runs at 25 MHz. */
uint32_t port_instructions(void) {
  if (!(SYST_CSR & 1u)) {
    SYST_RVR = 0xffffffu;
    SYST_CVR = 0;
    SYST_CSR = 5;
    while (SYST_CVR == 0) {
    }
  }
  return (0xffffffu - SYST_CVR) * 40u;
}

void reset_handler(void) {
  uint32_t *from = &_data_load, *to = &_data_start;
  while (to < &_data_end) *to++ = *from++;
  for (to = &_bss_start; to < &_bss_end;) *to++ = 0;
  port_exit(main());
}

static void fault(void) {
  port_write("fault\n");
  port_exit(3);
}

__attribute__((section(".vectors"), used)) static const void *const vectors[16] = {
    &_stack_top,        (const void *)reset_handler, (const void *)fault, (const void *)fault,
    (const void *)fault, (const void *)fault,         (const void *)fault};
