// The program `shoestring`: hands its words to the verbs.
#include <string>
#include <vector>

#include "launch/standard_streams.h"
#include "launch/verbs.h"

int main(int argc, char** argv) {
  shoestring::OpenStandardStreams();
  return shoestring::FinishStandardOutput(shoestring::RunCommandLine(std::vector<std::string>(argv + 1, argv + argc)));
}
