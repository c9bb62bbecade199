/* What the example needs of its surroundings: a file for each target. */
#ifndef PORT_H
#define PORT_H

#include <stdint.h>

void port_write(const char *text);
void port_exit(int status);
/* Instructions so far, where the target can say; an emulator's count is an estimate of a
 * processor's work, not of its time. 0 where it cannot. */
uint32_t port_instructions(void);

#endif
