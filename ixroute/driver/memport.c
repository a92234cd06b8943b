#include "driver/memport.h"
