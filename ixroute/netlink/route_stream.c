#include "netlink/route_stream.h"
