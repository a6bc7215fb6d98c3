"""What Python runs when it is given the agent's archive."""

import sys

from emca_deploy.targets.agent.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
