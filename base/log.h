// Log lines: one event a line, with time, severity and rank, to standard error.
#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace shoestring {

enum class Severity { kInfo, kWarning, kError };

// Writes "2026-01-31T12:00:00Z I rank 3: message" in one write(2), so that lines of several ranks never mix.
// A rank below 0 is left out. Control characters in the message are escaped.
void Log(Severity severity, int rank, absl::string_view message);

// The line that Log writes, newline included, for a given time (nanoseconds since the Unix epoch).
std::string FormatLogLine(int64_t wall_nanos, Severity severity, int rank, absl::string_view message);

inline void LogInfo(absl::string_view message) { Log(Severity::kInfo, -1, message); }
inline void LogWarning(absl::string_view message) { Log(Severity::kWarning, -1, message); }
inline void LogError(absl::string_view message) { Log(Severity::kError, -1, message); }

}  // namespace shoestring
