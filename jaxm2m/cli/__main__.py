from jaxm2m.cli import main

main()
