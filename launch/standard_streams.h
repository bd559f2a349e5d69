// Standard input, output and error of the process: open at its start, whole at its end.
#pragma once

namespace shoestring {

// Opens /dev/null on each of the three that is closed: the next file to be opened would otherwise take its number, and
// what is meant for the terminal would land in that file.
void OpenStandardStreams();

// Writes out what is still buffered. Gives `exit_code`, or, where that is 0 and standard output did not take everything
// (a full disk behind it; a reader who went away is none), says so on standard error and gives 74.
int FinishStandardOutput(int exit_code);

}  // namespace shoestring
