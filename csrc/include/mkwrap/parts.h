// The parts of a library: its manifest, constants and device images. They lie in one section, the
// last of the file and a segment of its own, and are found through a directory, so that a tuned
// library can be written without a linker; docs/open-choice.md has the layout. The directory also
// holds the choice: per target the alternative of each kernel that runs.
#ifndef MKWRAP_PARTS_H_
#define MKWRAP_PARTS_H_

#include <stdint.h>
#include <string.h>

#include "mkwrap/error.h"

// Define `mkw_parts` as the bytes of `file`. Before it stand, for whoever rewrites the library, the
// distances to it, to the table of functions and to the kernels' code (`MKW_PARTS_CODE(entry)`
// each). The assembler finds the file through its -I folders. At namespace scope.
#define MKW_PARTS(file, codes)                                        \
  __asm__(                                                            \
      ".pushsection .mkwrap, \"a\", %progbits\n"                      \
      ".balign 64\n"                                                  \
      ".quad mkw_parts - .\n"                                         \
      ".quad mkw_api_table - .\n" codes                               \
      ".balign 64\n"                                                  \
      ".hidden mkw_parts\n"                                           \
      ".globl mkw_parts\n"                                            \
      ".type mkw_parts, %object\n"                                    \
      "mkw_parts:\n"                                                  \
      ".incbin \"" file                                               \
      "\"\n"                                                          \
      ".size mkw_parts, . - mkw_parts\n"                              \
      ".popsection\n");                                               \
  extern "C" const char mkw_parts[];                                  \
  /* Named, so that the assembler text above can tell where it is. */ \
  extern "C" [[gnu::visibility("hidden")]] const mkw_api mkw_api_table

#define MKW_PARTS_CODE(entry) ".quad " #entry " - .\n"

namespace mkwrap::runtime {

// Bytes of a part, counted from the directory's start; a part that was dropped has size 0.
struct Part {
  uint64_t offset;
  uint64_t size;
};

// The start of the directory; `parts` entries of `Part` follow, then `rows` rows.
struct Directory {
  char magic[8];
  uint32_t version;
  uint32_t parts;
  uint32_t rows;
  uint32_t kernels;
};

// A target's row: the scratch memory its choice needs, then per kernel the number of the
// alternative that runs.
struct Row {
  int64_t workspace_bytes;  // MKW_DYNAMIC: dynamic sizes have no upper bounds
  const uint32_t* choices;
};

inline Part part(const char* parts, uint32_t number) {
  Part found;
  memcpy(&found, parts + sizeof(Directory) + number * sizeof(Part), sizeof(found));
  return found;
}

inline const unsigned char* part_bytes(const char* parts, uint32_t number) {
  return reinterpret_cast<const unsigned char*>(parts) + part(parts, number).offset;
}

inline Row row(const char* parts, int32_t number) {
  Directory directory;
  memcpy(&directory, parts, sizeof(directory));
  const uint64_t row_bytes = sizeof(uint64_t) * (1 + (uint64_t{directory.kernels} + 1) / 2);
  const char* at = parts + sizeof(Directory) + directory.parts * sizeof(Part) +
                   static_cast<uint64_t>(number) * row_bytes;
  Row found;
  memcpy(&found.workspace_bytes, at, sizeof(found.workspace_bytes));
  found.choices = reinterpret_cast<const uint32_t*>(at + sizeof(found.workspace_bytes));
  return found;
}

// Check that the constants of `source`, parts 1 to `constant_count`, can stand in for those of
// `own`.
inline mkw_status check_weights(const mkw_api& own, const mkw_api& source, uint32_t constant_count,
                                mkw_error* error) {
  if (source.size < sizeof(mkw_api) || strcmp(source.program, own.program) != 0)
    return fail(error, MKW_ERROR_WEIGHTS, -1,
                "the weights are of another program: compile it from the same function, example "
                "inputs and choices, with other parameters");
  for (uint32_t i = 1; i <= constant_count; ++i)
    if (part(own.parts, i).size != part(source.parts, i).size)
      return fail(error, MKW_ERROR_WEIGHTS, -1,
                  "the weights are laid out for other kernels: tune one library and compile the "
                  "other by its record");
  return MKW_OK;
}

}  // namespace mkwrap::runtime

#endif  // MKWRAP_PARTS_H_
