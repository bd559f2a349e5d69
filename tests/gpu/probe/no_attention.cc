// The probe's item about cuDNN in a build without the headers of cudnn-frontend.
#include "tests/gpu/probe/report.h"

namespace shoestring::probe {

void ProbeAttention() {
  Answer("attention", "cuDNN's plans", "not asked: built without cudnn-frontend (launch/fetch_cudnn_frontend.sh)");
}

}  // namespace shoestring::probe
