// R9: a C++ program is linked with a generated library and runs it.
#include "check.h"
#include "mkwrap/mkwrap.hpp"

int main() {
  CHECK(mkw_get_api(MKW_ABI_VERSION + 1) == nullptr);
  const mkwrap::Library library = mkwrap::Library::from(mkw_get_api);
  mkwrap::Context context{mkwrap::Model(library)};
  alignas(64) float x[8] = {0, 1, 2, 3, 4, 5, 6, 7};
  alignas(64) float y[8] = {};
  context.run({mkwrap::Tensor(x, {8})}, {mkwrap::Tensor(y, {8})});
  for (int i = 0; i < 8; ++i) CHECK(y[i] == x[i] + 1.0F);
}
