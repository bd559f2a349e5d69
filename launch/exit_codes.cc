// Maps failures to exit codes and to the line that a person reads.
#include "launch/exit_codes.h"

#include <cstdio>
#include <string>

namespace shoestring {

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
  std::fprintf(stderr, "%s%s\n", prefix, message.c_str());
  return static_cast<int>(ExitCodeOf(area, status));
}

}  // namespace shoestring
