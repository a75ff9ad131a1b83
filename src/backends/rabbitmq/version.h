#pragma once

#include <string_view>

namespace relay::rabbitmq {

/// What a broker says of itself when it greets.
struct ServerVersion {
  bool is_rabbitmq = false;  ///< else another server that speaks the protocol
  int major = 0;
  int minor = 0;

  bool at_least(int wanted_major, int wanted_minor) const {
    return major != wanted_major ? major > wanted_major : minor >= wanted_minor;
  }
  /// From 4.0 on a quorum queue limits deliveries to 20 unless told otherwise, and a limit of -1 is
  /// none. To earlier ones -1 means that the first redelivery is one too many.
  bool limits_deliveries() const { return is_rabbitmq && at_least(4, 0); }
  /// From 3.10 on the broker refuses consumer arguments that its queue's type does not know.
  bool checks_consumer_arguments() const { return is_rabbitmq && at_least(3, 10); }
};

/// "RabbitMQ" and "3.10.8". What cannot be read is version 0.0.
ServerVersion parse_version(std::string_view product, std::string_view version);

}  // namespace relay::rabbitmq
