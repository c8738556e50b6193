// Raises the classes of mkwrap.errors.
#ifndef MKWRAP_BINDING_PYTHON_ERRORS_H_
#define MKWRAP_BINDING_PYTHON_ERRORS_H_

#include <string>

#include "mkwrap/abi.h"

namespace mkwrap::binding {

// Set the Python exception mkwrap.errors.<name>. Needs the interpreter lock.
void set_error(const char* name, const std::string& message);

// Set the exception that stands for a status of the C ABI.
void set_status_error(const mkw_error& error);

}  // namespace mkwrap::binding

#endif  // MKWRAP_BINDING_PYTHON_ERRORS_H_
