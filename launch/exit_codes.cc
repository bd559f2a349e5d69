// Maps failures to exit codes and to the line that a person reads.
#include "launch/exit_codes.h"

#include <cstdio>
#include <string>

#include "absl/strings/string_view.h"

namespace shoestring {

namespace {

// How to mend what the system refused, for messages that say no remedy of their own (those follow a semicolon).
const char* Remedy(const absl::Status& status) {
  if (status.message().find("; ") != absl::string_view::npos) return "";
  switch (status.code()) {
    case absl::StatusCode::kNotFound: return "; check the path";
    case absl::StatusCode::kPermissionDenied: return "; check who may read and write there";
    case absl::StatusCode::kResourceExhausted: return "; make room, or write to another disk";
    case absl::StatusCode::kAlreadyExists: return "; name another place";
    case absl::StatusCode::kDataLoss: return "; restore it from a copy or make it again";
    default: return "";
  }
}

}  // namespace

ExitCode ExitCodeOf(Area area, const absl::Status& status) {
  if (status.ok()) return ExitCode::kDone;
  if (area == Area::kUsage) return ExitCode::kUsage;
  if (area == Area::kConfig) return ExitCode::kBadConfig;
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kDataLoss:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kFailedPrecondition: return ExitCode::kBadData;
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kUnavailable: return ExitCode::kInputOutput;
    case absl::StatusCode::kAborted: return ExitCode::kStopped;
    default: return ExitCode::kInternal;
  }
}

int Fail(Area area, const absl::Status& status) {
  const std::string message(status.message());
  // Problems of a config name file, line and column themselves; editors jump there only if nothing stands before.
  const char* prefix = area == Area::kConfig ? "" : "shoestring: ";
  std::fprintf(stderr, "%s%s%s\n", prefix, message.c_str(), Remedy(status));
  return static_cast<int>(ExitCodeOf(area, status));
}

}  // namespace shoestring
