#include "core/stop_event.h"

namespace relay {

StopEvent::StopEvent(std::stop_token stop)
    : stop_(std::move(stop)), callback_(stop_, Signal{&wakeup_}) {}

}  // namespace relay
