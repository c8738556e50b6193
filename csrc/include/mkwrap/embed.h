// Embedding a file's bytes in a read-only section, 64-byte aligned. The assembler finds the file
// through its -I folders.
#ifndef MKWRAP_EMBED_H_
#define MKWRAP_EMBED_H_

// Define `symbol`, an array of `type`, as the bytes of `file` followed by a zero byte. At namespace
// scope.
#define MKW_EMBED(type, symbol, file)                   \
  __asm__(                                              \
      ".pushsection .rodata.mkwrap, \"a\", %progbits\n" \
      ".balign 64\n"                                    \
      ".hidden " #symbol                                \
      "\n"                                              \
      ".globl " #symbol                                 \
      "\n"                                              \
      ".type " #symbol ", %object\n" #symbol            \
      ":\n"                                             \
      ".incbin \"" file                                 \
      "\"\n"                                            \
      ".byte 0\n"                                       \
      ".size " #symbol ", . - " #symbol                 \
      "\n"                                              \
      ".popsection\n");                                 \
  extern "C" const type symbol[]

#endif  // MKWRAP_EMBED_H_
