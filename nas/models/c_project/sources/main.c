/* Example: runs the test vectors and compares every bit of the outputs. */
#include <string.h>

#include "model.h"
#include "port.h"
#include "test_vectors.h"

static void write_number(uint32_t number) {
  char text[12];
  int i = 11;
  text[i] = 0;
  do {
    text[--i] = (char)('0' + number % 10u);
    number /= 10u;
  } while (number);
  port_write(text + i);
}

int main(void) {
  int vector, i, right = 0;
  uint32_t instructions = 0;
  for (vector = 0; vector < TEST_VECTORS; ++vector) {
    const uint8_t *output;
    uint32_t before;
    int same = 1;
#ifdef EDGE_NAS_PIXELS
    edge_nas_set_pixels(test_inputs[vector]);
#else
    memcpy(edge_nas_input(), test_inputs[vector], EDGE_NAS_INPUT_SIZE);
#endif
    before = port_instructions();
    output = edge_nas_run();
    instructions = port_instructions() - before;
    for (i = 0; i < EDGE_NAS_OUTPUTS; ++i) {
      uint32_t bits;
      memcpy(&bits, output + 4 * i, 4);
      same &= bits == test_outputs[vector][i];
    }
    right += same;
    port_write(same ? "same, class " : "DIFFERENT, class ");
    write_number((uint32_t)edge_nas_class());
    port_write("\n");
  }
  if (instructions) {
    port_write("instructions of an inference (estimate): ");
    write_number(instructions);
    port_write("\n");
  }
  port_write(right == TEST_VECTORS ? "PASS " : "FAIL ");
  write_number((uint32_t)right);
  port_write(" of ");
  write_number(TEST_VECTORS);
  port_write("\n");
  return right == TEST_VECTORS ? 0 : 1;
}
