// Macros that return early on a failed absl::Status, so that the straight line of a function is its success.
#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

namespace shoestring {

// Puts `context` in front of the message of a failed status; keeps the code. Context is added once, where it is known.
inline absl::Status WithContext(const absl::Status& status, absl::string_view context) {
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrCat(context, ": ", status.message()));
}

}  // namespace shoestring

#define SHOESTRING_CONCAT_INNER(a, b) a##b
#define SHOESTRING_CONCAT(a, b) SHOESTRING_CONCAT_INNER(a, b)

// The local's name is one that no member has: an expression that names a member `status_` must mean the member.
#define RETURN_IF_ERROR(expression)                                                         \
  do {                                                                                      \
    if (absl::Status return_if_error_result = (expression); !return_if_error_result.ok()) { \
      return return_if_error_result;                                                        \
    }                                                                                       \
  } while (false)

#define ASSIGN_OR_RETURN(target, expression) \
  ASSIGN_OR_RETURN_IMPL(SHOESTRING_CONCAT(status_or_, __LINE__), target, expression)
#define ASSIGN_OR_RETURN_IMPL(temporary, target, expression) \
  auto temporary = (expression);                             \
  if (!temporary.ok()) return temporary.status();            \
  target = std::move(temporary).value()
